//! What must hold for whatever a server of FastCGI sends. Shared by the fuzz target and the unit tests.

use bytes::{Bytes, BytesMut};

use super::{BadRecord, Records, Said};

/// What is said in bytes that come in pieces. Parts of a stream that follow each other are one.
pub(crate) fn read(pieces: &[&[u8]]) -> Result<Vec<Said>, BadRecord> {
    let (mut records, mut inbox) = (Records::default(), BytesMut::new());
    let mut all: Vec<Said> = Vec::new();
    let join = |before: &mut Bytes, more: Bytes| *before = [&before[..], &more].concat().into();
    for piece in pieces {
        inbox.extend_from_slice(piece);
        while let Some(said) = records.next(&mut inbox)? {
            match (all.last_mut(), said) {
                (Some(Said::Out(before)), Said::Out(more))
                | (Some(Said::Error(before)), Said::Error(more)) => join(before, more),
                (_, said) => all.push(said),
            }
        }
    }
    Ok(all)
}

/// The first byte says where the rest is cut.
pub(crate) fn records(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = read(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(read(&[front, back]), whole);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&single), whole);
    if let Ok(said) = whole {
        let len = |said: &Said| match said {
            Said::Out(bytes) | Said::Error(bytes) => bytes.len(),
            Said::End(_) => 8,
        };
        assert!(said.iter().map(len).sum::<usize>() <= bytes.len(), "nothing is said that has not come");
    }
}
