//! What both directions have in common: heads of records, alerts, and faults. Pure.

/// Content type, version, length.
pub(crate) const HEADER_LEN: usize = 5;
/// Bytes of content in one record at most (RFC 8446 §5.1).
pub(crate) const PLAINTEXT_MAX: usize = 1 << 14;
/// What protection may add to them: RFC 8446 §5.2, RFC 5246 §6.2.3.
const EXPANSION_MAX: (usize, usize) = (256, 2048);
/// Bytes of one record on the wire at most.
pub(crate) const RECORD_MAX: usize = HEADER_LEN + PLAINTEXT_MAX + EXPANSION_MAX.1;
/// The version in a record's header; it is ignored in TLS 1.3 (RFC 8446 §5.1).
pub(super) const VERSION: [u8; 2] = [3, 3];

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ContentType {
    ChangeCipherSpec = 20,
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

impl ContentType {
    pub(super) fn of(byte: u8) -> Option<Self> {
        match byte {
            20 => Some(Self::ChangeCipherSpec),
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::ApplicationData),
            _ => None,
        }
    }
}

/// The front of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) content_type: ContentType,
    /// Bytes that follow.
    pub(crate) body_len: usize,
}

impl Header {
    /// Reads the front of `wire`; `None` if there is too little of it.
    ///
    /// # Errors
    /// If no peer that has finished its handshake would send this.
    pub(crate) fn parse(wire: &[u8], tls13: bool) -> Result<Option<Self>, Fault> {
        let Some(&[content_type, major, _, high, low]) = wire.first_chunk() else { return Ok(None) };
        let content_type = ContentType::of(content_type).ok_or(Fault::UNEXPECTED_MESSAGE)?;
        if major != VERSION[0] {
            return Err(Fault::PROTOCOL_VERSION);
        }
        // Everything is protected now, and looks like data (RFC 8446 §5.2).
        if tls13 && content_type != ContentType::ApplicationData {
            return Err(Fault::UNEXPECTED_MESSAGE);
        }
        let body_len = usize::from(u16::from_be_bytes([high, low]));
        let expansion_max = if tls13 { EXPANSION_MAX.0 } else { EXPANSION_MAX.1 };
        if body_len > PLAINTEXT_MAX + expansion_max {
            return Err(Fault::RECORD_OVERFLOW);
        }
        Ok(Some(Self { content_type, body_len }))
    }

    pub(crate) fn to_wire(self) -> [u8; HEADER_LEN] {
        // Ours are short enough, and the peer's have been judged.
        let [high, low] = u16::try_from(self.body_len).unwrap_or(u16::MAX).to_be_bytes();
        [self.content_type as u8, VERSION[0], VERSION[1], high, low]
    }

    /// Header and body.
    pub(crate) fn record_len(self) -> usize {
        HEADER_LEN + self.body_len
    }
}

/// Why a connection can't go on, and the alert that says so (RFC 8446 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} (TLS alert {alert})")]
pub(crate) struct Fault {
    pub(crate) alert: u8,
    what: &'static str,
}

impl Fault {
    pub(crate) const UNEXPECTED_MESSAGE: Self = Self::new(10, "the client sent an unexpected record");
    pub(crate) const BAD_RECORD_MAC: Self = Self::new(20, "a record from the client can't be authenticated");
    pub(crate) const RECORD_OVERFLOW: Self = Self::new(22, "the client sent a record that is too long");
    pub(crate) const ILLEGAL_PARAMETER: Self =
        Self::new(47, "the client sent a KeyUpdate with an invalid request_update");
    pub(crate) const DECODE_ERROR: Self = Self::new(50, "the client sent a malformed record");
    pub(crate) const PROTOCOL_VERSION: Self =
        Self::new(70, "the client sent a record with an invalid TLS version");
    pub(crate) const INTERNAL: Self = Self::new(80, "a record can't be protected");

    pub(crate) const USED_UP: Self = Self::new(0, "the keys of this TLS 1.2 connection are used up");

    /// That of this alert.
    pub(crate) fn of(alert: u8) -> Option<Self> {
        let all = [
            Self::UNEXPECTED_MESSAGE,
            Self::BAD_RECORD_MAC,
            Self::RECORD_OVERFLOW,
            Self::ILLEGAL_PARAMETER,
            Self::DECODE_ERROR,
            Self::PROTOCOL_VERSION,
            Self::INTERNAL,
            Self::USED_UP,
        ];
        all.into_iter().find(|fault| fault.alert == alert)
    }

    const fn new(alert: u8, what: &'static str) -> Self {
        Self { alert, what }
    }
}

/// The content of an alert record.
pub(crate) fn alert(description: u8) -> [u8; 2] {
    const WARNING: u8 = 1;
    const FATAL: u8 = 2;
    [
        if matches!(description, CLOSE_NOTIFY | USER_CANCELED | NO_RENEGOTIATION) { WARNING } else { FATAL },
        description,
    ]
}

/// The peer sends nothing more, and meant to.
pub(crate) const CLOSE_NOTIFY: u8 = 0;
/// Given up for a reason that is no fault of the protocol's; close_notify follows (RFC 8446 §6.1).
pub(crate) const USER_CANCELED: u8 = 90;
/// RFC 6066 §3: the server has no certificate for the name.
pub(crate) const UNRECOGNIZED_NAME: u8 = 112;
/// RFC 5246 §7.2.2.
pub(crate) const NO_RENEGOTIATION: u8 = 100;

/// A KeyUpdate that asks for none in return (RFC 8446 §4.6.3).
pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
