//! Shows that the gateway looks at frames: what breaks the rules is answered with the right Close.

use std::rc::Rc;

use anyhow::{bail, ensure};

use super::echo::connect;
use super::shared::Shared;
use crate::frame::{self, Head, HeadReader};

pub(super) async fn probe(shared: Rc<Shared>, oversize: u64) -> anyhow::Result<()> {
    shared.ready().await;
    let unmasked = Head { first: frame::TEXT, payload_len: 5, mask: None };
    let too_long = Head { first: frame::BINARY, payload_len: oversize, mask: Some([1, 2, 3, 4]) };
    for (what, head, expected) in [("unmasked", unmasked, 1002), ("oversize", too_long, 1009)] {
        let code = provoke(&shared, head).await?;
        ensure!(code == expected, "an {what} frame was answered with Close {code}, not {expected}");
        shared.count(1);
    }
    Ok(())
}

/// Sends a head and five bytes; the code of the Close that answers.
async fn provoke(shared: &Shared, head: Head) -> anyhow::Result<u16> {
    let mut connection = connect(shared, 0).await?;
    head.put(&mut connection.outbox);
    connection.outbox.extend_from_slice(b"hello");
    let mut reader = HeadReader::default();
    let mut answer = Vec::new();
    loop {
        let (input, _) = connection.exchange().await?;
        ensure!(!input.is_empty(), "no Close before the end of the stream");
        answer.extend_from_slice(input);
        let mut rest = answer.as_slice();
        if let (Some(head), [high, low, ..]) = (reader.read(&mut rest), rest) {
            if head.first != frame::CLOSE {
                bail!("no Close but {head:?}");
            }
            return Ok(u16::from_be_bytes([*high, *low]));
        }
        reader = HeadReader::default();
    }
}
