//! What is compressed, in a bench and in the comparison: JSON as servers send it.

/// One object a line, the first with this number, cut at the length. No two objects are the same.
pub(crate) fn trades(number: u64, len: usize) -> String {
    let mut text = String::new();
    for line in number.. {
        let price = line.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        text += &format!(
            "{{\"type\":\"trade\",\"symbol\":\"SYM{}\",\"price\":\"{}.{:02}\",\"quantity\":{},\"sequence\":{line}}}\n",
            price % 37,
            price / 100,
            price % 100,
            price % 1009,
        );
        if text.len() >= len {
            break;
        }
    }
    text.truncate(len);
    text
}
