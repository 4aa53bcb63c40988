//! The one thing that has to be known of a ClientHello before rustls reads it.

/// Extension types (RFC 8446 §4.2).
const PRE_SHARED_KEY: u16 = 41;
const CLIENT_HELLO: u8 = 1;

/// Whether the ClientHello that a connection begins with asks to resume a session of TLS 1.3.
///
/// Nothing is judged here, rustls does that. What is cut off, spread over records or no ClientHello asks for
/// nothing.
pub(crate) fn asks_to_resume(wire: &[u8]) -> bool {
    // It must be the last (RFC 8446 §4.2.11).
    last_extension(wire) == Some(PRE_SHARED_KEY)
}

fn last_extension(mut wire: &[u8]) -> Option<u16> {
    wire.split_off(..3)?; // type and version of the record (RFC 8446 §5.1)
    let mut record = vector(&mut wire, 2)?;
    if *record.split_off_first()? != CLIENT_HELLO {
        return None;
    }
    let mut hello = vector(&mut record, 3)?; // RFC 8446 §4.1.2
    hello.split_off(..2 + 32)?; // version, random
    vector(&mut hello, 1)?; // session id
    vector(&mut hello, 2)?; // cipher suites
    vector(&mut hello, 1)?; // compression methods
    let mut extensions = vector(&mut hello, 2)?;
    let mut last = None;
    while !extensions.is_empty() {
        last = Some(u16::from_be_bytes(*extensions.split_first_chunk()?.0));
        extensions.split_off(..2)?;
        vector(&mut extensions, 2)?;
    }
    last
}

/// Takes a vector whose length is a number of so many bytes (RFC 8446 §3.4).
fn vector<'a>(from: &mut &'a [u8], length_len: usize) -> Option<&'a [u8]> {
    let length = from.split_off(..length_len)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    from.split_off(..length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector_of(length_len: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - length_len..], content].concat()
    }

    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), vector_of(2, content)].concat())
            .collect();
        let body = [
            &[3; 34][..],
            &vector_of(1, &[7; 32]),
            &vector_of(2, &[0x13, 1]),
            &vector_of(1, &[0]),
            &vector_of(2, &extensions),
        ];
        let message = [&[CLIENT_HELLO][..], &vector_of(3, &body.concat())].concat();
        [&[22, 3, 1][..], &vector_of(2, &message)].concat()
    }

    #[test]
    fn a_ticket_is_the_last_extension() {
        assert!(asks_to_resume(&hello(&[(0, b"name"), (51, b""), (PRE_SHARED_KEY, &[9; 300])])));
        assert!(asks_to_resume(&[hello(&[(PRE_SHARED_KEY, b"x")]), vec![20, 3, 3, 0, 1, 1]].concat()));
        assert!(!asks_to_resume(&hello(&[(PRE_SHARED_KEY, b"x"), (0, b"name")])));
        assert!(!asks_to_resume(&hello(&[(0, &[0, 41])])));
        assert!(!asks_to_resume(&hello(&[])));
    }

    #[test]
    fn what_is_cut_off_asks_for_nothing() {
        let whole = hello(&[(0, b"name"), (PRE_SHARED_KEY, b"ticket")]);
        for end in 0..whole.len() {
            assert!(!asks_to_resume(&whole[..end]), "{end}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_looked_at(wire: Vec<u8>, at: prop::sample::Index, byte: u8) {
            asks_to_resume(&wire);
            let mut hello = hello(&[(0, b"name"), (PRE_SHARED_KEY, &wire)]);
            let at = at.index(hello.len());
            hello[at] = byte;
            asks_to_resume(&hello);
        }
    }
}
