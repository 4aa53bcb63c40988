//! The outermost layers of DER (X.690 §8.1), as far as needed to see what something is. Pure.

/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// OBJECT IDENTIFIER.
pub(crate) const OBJECT_ID: u8 = 0x06;
/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// With its tag and length.
    pub(crate) whole: &'a [u8],
    /// What follows.
    pub(crate) rest: &'a [u8],
}

/// The element at the front of `input`, if it is whole.
pub(crate) fn element(input: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0usize, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some(Element { tag, content, whole: &input[..input.len() - rest.len()], rest })
}

/// Like [`element`], but only one with this tag.
pub(crate) fn expect(input: &[u8], tag: u8) -> Option<Element<'_>> {
    element(input).filter(|element| element.tag == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_whole_or_none() {
        let input = [SEQUENCE, 3, INTEGER, 1, 5, 0xff];
        let sequence = expect(&input, SEQUENCE).unwrap();
        assert_eq!(
            (sequence.content, sequence.whole, sequence.rest),
            (&input[2..5], &input[..5], &input[5..])
        );
        assert_eq!(expect(sequence.content, INTEGER).unwrap().content, [5]);
        assert_eq!(expect(&input, INTEGER), None);
        for len in 0..5 {
            assert_eq!(element(&input[..len]), None, "{len}");
        }
        let long = [&[0x04, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        assert_eq!(element(&long).unwrap().content, [7; 256]);
        assert_eq!(element(&long[..259]), None);
        for length in [0x80, 0x85, 0xff] {
            assert_eq!(element(&[0x04, length, 0, 0, 0, 0, 0, 0]), None);
        }
        assert_eq!(element(&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }
}
