//! What must hold for the beginning of any connection. Shared by the fuzz target and the unit tests.

use super::{Header, HeaderFault, HeaderReader, REST_LEN_MAX};

/// What a reader makes of bytes that come in pieces: how many it takes, and the header.
pub(crate) fn read(pieces: &[&[u8]]) -> Result<(usize, Option<Header>), HeaderFault> {
    let mut reader = HeaderReader::default();
    let mut all = 0;
    for piece in pieces {
        let (taken, header) = reader.feed(piece)?;
        assert!(taken <= piece.len());
        all += taken;
        if header.is_some() {
            return Ok((all, header));
        }
        assert_eq!(taken, piece.len(), "what is no complete header is taken whole");
    }
    Ok((all, None))
}

/// The first byte says where the rest is cut.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = read(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(read(&[front, back]), whole);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&single), whole);
    if let Ok((taken, Some(_))) = whole {
        assert!(taken <= 16 + REST_LEN_MAX);
        assert_eq!(read(&[&bytes[..taken]]), whole, "nothing behind the header matters");
        assert_eq!(read(&[&bytes[..taken - 1]]), Ok((taken - 1, None)), "nor is it complete before its end");
    }
}
