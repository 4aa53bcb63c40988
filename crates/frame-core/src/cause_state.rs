//! Why a session ends, as bytes for another process. The numbers here don't change; new ones are added.

use std::io::ErrorKind;

use net_io::state::{StateError, StateReader, StateWriter};

use crate::close::{Close, REASON_MAX};
use crate::outcome::{Cause, Ended, Party};
use crate::violation::Violation;

/// Errors that a peer's connection may end with. Any other is written as [`ErrorKind::Other`].
const KINDS: [(u8, ErrorKind); 16] = [
    (0, ErrorKind::Other),
    (1, ErrorKind::TimedOut),
    (2, ErrorKind::HostUnreachable),
    (3, ErrorKind::NetworkUnreachable),
    (4, ErrorKind::NetworkDown),
    (5, ErrorKind::InvalidData),
    (6, ErrorKind::InvalidInput),
    (7, ErrorKind::WriteZero),
    (8, ErrorKind::OutOfMemory),
    (9, ErrorKind::PermissionDenied),
    (10, ErrorKind::NotConnected),
    (11, ErrorKind::Unsupported),
    (12, ErrorKind::Interrupted),
    (13, ErrorKind::ConnectionRefused),
    (14, ErrorKind::AddrNotAvailable),
    (15, ErrorKind::WouldBlock),
];

pub(crate) fn write_party(out: &mut StateWriter, party: Party) {
    out.u8(match party {
        Party::Client => 0,
        Party::Backend => 1,
        Party::Gateway => 2,
    });
}

pub(crate) fn read_party(fields: &mut StateReader<'_>) -> Result<Party, StateError> {
    match fields.u8()? {
        0 => Ok(Party::Client),
        1 => Ok(Party::Backend),
        2 => Ok(Party::Gateway),
        _ => Err(StateError::Invalid("a party")),
    }
}

pub(crate) fn write_ended(out: &mut StateWriter, ended: Ended) {
    let (number, kind) = match ended {
        Ended::Eof => (0, 0),
        Ended::Truncated => (1, 0),
        Ended::Reset => (2, 0),
        Ended::Failed(kind) => {
            (3, KINDS.iter().find(|(_, known)| *known == kind).map_or(0, |(number, _)| *number))
        }
    };
    out.u8(number);
    out.u8(kind);
}

pub(crate) fn read_ended(fields: &mut StateReader<'_>) -> Result<Ended, StateError> {
    match (fields.u8()?, fields.u8()?) {
        (0, 0) => Ok(Ended::Eof),
        (1, 0) => Ok(Ended::Truncated),
        (2, 0) => Ok(Ended::Reset),
        (3, number) => {
            // A later release may know more of them.
            let kind = KINDS.iter().find(|(known, _)| *known == number);
            Ok(Ended::Failed(kind.map_or(ErrorKind::Other, |(_, kind)| *kind)))
        }
        _ => Err(StateError::Invalid("the end of a connection")),
    }
}

pub(crate) fn write_violation(out: &mut StateWriter, violation: Violation) {
    let (number, first, second) = match violation {
        Violation::Unmasked => (0, 0, 0),
        Violation::Masked => (1, 0, 0),
        Violation::ReservedBits { bits } => (2, bits.into(), 0),
        Violation::UnknownOpcode { opcode } => (3, opcode.into(), 0),
        Violation::ControlFragmented => (4, 0, 0),
        Violation::ControlTooLong => (5, 0, 0),
        Violation::LengthNotMinimal { len } => (6, len, 0),
        Violation::LengthOverflow => (7, 0, 0),
        Violation::UnexpectedContinuation => (8, 0, 0),
        Violation::Interleaved => (9, 0, 0),
        Violation::MessageTooBig { len, max } => (10, len, max),
        Violation::CloseTruncated => (11, 0, 0),
        Violation::CloseCode { code } => (12, code.into(), 0),
        Violation::CloseReason => (13, 0, 0),
        Violation::Utf8 => (14, 0, 0),
        Violation::NotBinary => (15, 0, 0),
        Violation::Deflate => (16, 0, 0),
        Violation::DeflateGrowth { max } => (17, max, 0),
        Violation::DeflateWaste { max } => (18, max, 0),
    };
    out.u8(number);
    out.u64(first);
    out.u64(second);
}

pub(crate) fn read_violation(fields: &mut StateReader<'_>) -> Result<Violation, StateError> {
    const INVALID: StateError = StateError::Invalid("a violation");
    let (number, first, second) = (fields.u8()?, fields.u64()?, fields.u64()?);
    Ok(match number {
        0 => Violation::Unmasked,
        1 => Violation::Masked,
        2 => Violation::ReservedBits { bits: u8::try_from(first).map_err(|_| INVALID)? },
        3 => Violation::UnknownOpcode { opcode: u8::try_from(first).map_err(|_| INVALID)? },
        4 => Violation::ControlFragmented,
        5 => Violation::ControlTooLong,
        6 => Violation::LengthNotMinimal { len: first },
        7 => Violation::LengthOverflow,
        8 => Violation::UnexpectedContinuation,
        9 => Violation::Interleaved,
        10 => Violation::MessageTooBig { len: first, max: second },
        11 => Violation::CloseTruncated,
        12 => Violation::CloseCode { code: u16::try_from(first).map_err(|_| INVALID)? },
        13 => Violation::CloseReason,
        14 => Violation::Utf8,
        15 => Violation::NotBinary,
        16 => Violation::Deflate,
        17 => Violation::DeflateGrowth { max: first },
        18 => Violation::DeflateWaste { max: first },
        _ => return Err(INVALID),
    })
}

pub(crate) fn write_cause(out: &mut StateWriter, cause: &Cause) {
    match cause {
        Cause::Closed { by, close: Close { code, reason } } => {
            out.u8(0);
            write_party(out, *by);
            out.option(*code, StateWriter::u16);
            out.bytes(reason.as_bytes());
        }
        Cause::Lost { party, how } => {
            out.u8(1);
            write_party(out, *party);
            write_ended(out, *how);
        }
        Cause::Violation { by, violation } => {
            out.u8(2);
            write_party(out, *by);
            write_violation(out, *violation);
        }
        Cause::Idle => out.u8(3),
        Cause::PongTimeout => out.u8(4),
        Cause::Stalled => out.u8(5),
        Cause::Ordered { code } => {
            out.u8(6);
            out.u16(*code);
        }
        Cause::Lifetime => out.u8(7),
        Cause::Finished { first } => {
            out.u8(8);
            write_party(out, *first);
        }
    }
}

pub(crate) fn read_cause(fields: &mut StateReader<'_>) -> Result<Cause, StateError> {
    Ok(match fields.u8()? {
        0 => {
            let (by, code) = (read_party(fields)?, fields.option(StateReader::u16)?);
            let reason =
                std::str::from_utf8(fields.bytes()?).ok().filter(|reason| reason.len() <= REASON_MAX);
            let reason = reason.ok_or(StateError::Invalid("the reason of a Close"))?.into();
            Cause::Closed { by, close: Close { code, reason } }
        }
        1 => Cause::Lost { party: read_party(fields)?, how: read_ended(fields)? },
        2 => Cause::Violation { by: read_party(fields)?, violation: read_violation(fields)? },
        3 => Cause::Idle,
        4 => Cause::PongTimeout,
        5 => Cause::Stalled,
        6 => Cause::Ordered { code: fields.u16()? },
        7 => Cause::Lifetime,
        8 => Cause::Finished { first: read_party(fields)? },
        _ => return Err(StateError::Invalid("the cause of an end")),
    })
}
