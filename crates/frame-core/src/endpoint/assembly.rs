//! Fragments in, messages out: bounded by the frame reader, and UTF-8 across fragment borders.

use bytes::BytesMut;
use net_io::state::{StateError, StateReader, StateWriter};

use crate::head::OpCode;
use crate::utf8::{self, Utf8};
use crate::violation::Violation;

/// What a message's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl MessageKind {
    /// Of the first frame.
    pub(super) fn opcode(self) -> OpCode {
        match self {
            Self::Text => OpCode::Text,
            Self::Binary => OpCode::Binary,
        }
    }
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Text or binary.
    pub kind: MessageKind,
    /// Unmasked. Valid UTF-8 if `kind` is [`MessageKind::Text`].
    pub payload: BytesMut,
}

/// The message in progress.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    open: Option<(MessageKind, BytesMut)>,
    utf8: Utf8,
}

impl Assembly {
    /// Takes the next data frame; `first` says what it begins, `None` a continuation.
    pub(super) fn push(
        &mut self,
        first: Option<MessageKind>,
        fin: bool,
        payload: BytesMut,
    ) -> Result<Option<Message>, Violation> {
        let (kind, whole) = match (self.open.take(), first) {
            (None, Some(kind)) if fin => {
                if kind == MessageKind::Text {
                    utf8::check(&payload)?;
                }
                return Ok(Some(Message { kind, payload }));
            }
            (None, Some(kind)) => {
                self.utf8 = Utf8::default();
                self.check(kind, &payload)?;
                (kind, payload)
            }
            (Some((kind, mut whole)), None) => {
                self.check(kind, &payload)?;
                whole.unsplit(payload);
                (kind, whole)
            }
            // The frame reader passes neither.
            (None, None) => return Err(Violation::UnexpectedContinuation),
            (Some(_), Some(_)) => return Err(Violation::Interleaved),
        };
        if !fin {
            self.open = Some((kind, whole));
            return Ok(None);
        }
        if kind == MessageKind::Text {
            self.utf8.finish()?;
        }
        Ok(Some(Message { kind, payload: whole }))
    }

    /// Writes what [`Self::read_state`] reads.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self { open, utf8 } = self;
        out.section(|out| {
            out.option(open.as_ref(), |out, (kind, payload)| {
                out.bool(*kind == MessageKind::Text);
                out.bytes(payload);
            });
            utf8.write_state(out);
        });
    }

    /// Goes on in the middle of a message.
    pub(super) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let open = fields.option(|fields| {
            let kind = if fields.bool()? { MessageKind::Text } else { MessageKind::Binary };
            Ok((kind, BytesMut::from(fields.bytes()?)))
        })?;
        Ok(Self { open, utf8: Utf8::read_state(&mut fields)? })
    }

    /// Bytes of the message in progress.
    pub(super) fn len(&self) -> usize {
        self.open.as_ref().map_or(0, |(_, payload)| payload.len())
    }

    /// Memory for it, in bytes.
    pub(super) fn held(&self) -> usize {
        self.open.as_ref().map_or(0, |(_, payload)| payload.capacity())
    }

    fn check(&mut self, kind: MessageKind, payload: &[u8]) -> Result<(), Violation> {
        match kind {
            MessageKind::Text => self.utf8.push(payload),
            MessageKind::Binary => Ok(()),
        }
    }
}
