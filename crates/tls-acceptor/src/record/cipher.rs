//! One direction of a connection: the key, the nonces, and how many records it may still protect.
//!
//! In: the bytes of one record. Out: the same, sealed or opened, in the caller's buffer; nothing is
//! allocated and nothing copied besides. Pure.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, SupportedCipherSuite};
use zeroize::Zeroize;

use super::header::{ContentType, Fault, HEADER_LEN, Header, PLAINTEXT_MAX, VERSION};
use super::secret::Secret;

const TAG_LEN: usize = 16;
pub(crate) const NONCE_LEN: usize = 12;
const KEY_LEN_MAX: usize = 32;
/// What AES-GCM in TLS 1.2 carries of the nonce in each record (RFC 5288 §3).
const EXPLICIT_LEN: usize = 8;

/// Most that sealing adds to one record's content, its header included.
pub(crate) const OVERHEAD_MAX: usize = HEADER_LEN + EXPLICIT_LEN + TAG_LEN;

/// How a version and its suite wrap an AEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// The content type is inside, behind it padding; the header is authenticated (RFC 8446 §5.2).
    Tls13,
    /// RFC 5288: 8 bytes of the nonce are on the wire.
    Tls12Gcm,
    /// RFC 7905.
    Tls12ChaCha,
}

/// Version and AEAD: what has to be known to make the same cipher from the same secret. The numbers are those of the
/// format in which a connection goes to another process, and don't change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Protection {
    Tls13Aes128Gcm = 1,
    Tls13Aes256Gcm = 2,
    Tls13ChaCha = 3,
    Tls12Aes128Gcm = 4,
    Tls12Aes256Gcm = 5,
    Tls12ChaCha = 6,
}

impl Protection {
    const ALL: [Self; 6] = [
        Self::Tls13Aes128Gcm,
        Self::Tls13Aes256Gcm,
        Self::Tls13ChaCha,
        Self::Tls12Aes128Gcm,
        Self::Tls12Aes256Gcm,
        Self::Tls12ChaCha,
    ];

    /// That of this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protection| *protection as u8 == number)
    }

    pub(crate) fn is_tls13(self) -> bool {
        self.parts().0 == Scheme::Tls13
    }

    /// How long a secret of this protection is: in TLS 1.3 as long as the suite's hash, in TLS 1.2 as the key.
    pub(crate) fn secret_len(self) -> usize {
        match self {
            Self::Tls13Aes128Gcm | Self::Tls13ChaCha | Self::Tls12Aes256Gcm | Self::Tls12ChaCha => 32,
            Self::Tls13Aes256Gcm => 48,
            Self::Tls12Aes128Gcm => 16,
        }
    }

    fn parts(self) -> (Scheme, &'static Algorithm) {
        match self {
            Self::Tls13Aes128Gcm => (Scheme::Tls13, &AES_128_GCM),
            Self::Tls13Aes256Gcm => (Scheme::Tls13, &AES_256_GCM),
            Self::Tls13ChaCha => (Scheme::Tls13, &CHACHA20_POLY1305),
            Self::Tls12Aes128Gcm => (Scheme::Tls12Gcm, &AES_128_GCM),
            Self::Tls12Aes256Gcm => (Scheme::Tls12Gcm, &AES_256_GCM),
            Self::Tls12ChaCha => (Scheme::Tls12ChaCha, &CHACHA20_POLY1305),
        }
    }
}

/// What makes the same cipher again, besides its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CipherState {
    pub(crate) protection: Protection,
    /// In TLS 1.3 it comes from the secret as the key does.
    pub(crate) iv: [u8; NONCE_LEN],
    pub(crate) sequence: u64,
    pub(crate) limit: u64,
}

/// What is to be sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// In one piece: sealed from there.
    Elsewhere(&'a [u8]),
    /// In pieces: brought together first.
    Copied(&'a [&'a [u8]]),
}

impl Content<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Elsewhere(content) => content.len(),
            Self::Copied(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
        }
    }
}

/// The protection of one direction.
pub(crate) struct Cipher {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    /// Records after which nothing more may be sealed with this key (RFC 8446 §5.5).
    limit: u64,
    scheme: Scheme,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher")
            .field("scheme", &self.scheme)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Cipher {
    /// Goes on where the handshake or a KeyUpdate left off.
    ///
    /// # Errors
    /// If `secrets` are of a kind that is unknown here.
    pub(crate) fn new(
        suite: SupportedCipherSuite,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, rustls::Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(rustls::Error::General("a cipher suite of an unknown kind".into())),
        };
        let (scheme, CipherSuiteCommon { confidentiality_limit, .. }) = match suite {
            SupportedCipherSuite::Tls13(suite) => (Scheme::Tls13, &suite.common),
            SupportedCipherSuite::Tls12(suite) if std::ptr::eq(algorithm, &CHACHA20_POLY1305) => {
                (Scheme::Tls12ChaCha, &suite.common)
            }
            SupportedCipherSuite::Tls12(suite) => (Scheme::Tls12Gcm, &suite.common),
        };
        let unfit = |_| rustls::Error::General("a key that doesn't fit its cipher suite".into());
        Ok(Self {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(unfit)?),
            iv: iv.as_ref().try_into().map_err(|_| rustls::Error::General("an invalid nonce".into()))?,
            sequence,
            limit: *confidentiality_limit,
            scheme,
        })
    }

    /// The one that protects what follows a KeyUpdate; `secret` becomes that one's (RFC 8446 §7.2).
    ///
    /// # Errors
    /// If the suite's key can't be made of it.
    pub(crate) fn successor(&self, secret: &mut Secret) -> Result<Self, Fault> {
        if !self.is_tls13() {
            return Err(Fault::INTERNAL); // what is known as its secret is its key
        }
        secret.advance()?;
        let (key, iv) = derive(self.key.algorithm(), secret)?;
        Ok(Self { key, iv, sequence: 0, limit: self.limit, scheme: self.scheme })
    }

    /// The first one that a `secret` of TLS 1.3 protects with.
    ///
    /// # Errors
    /// If the suite is of another version, or of an unknown kind.
    pub(crate) fn first(suite: SupportedCipherSuite, secret: &Secret) -> Result<Self, Fault> {
        let common = suite.tls13().map(|suite| &suite.common).ok_or(Fault::INTERNAL)?;
        let algorithm = match common.suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => &AES_128_GCM,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256_GCM,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &CHACHA20_POLY1305,
            _ => return Err(Fault::INTERNAL),
        };
        let (key, iv) = derive(algorithm, secret)?;
        Ok(Self { key, iv, sequence: 0, limit: common.confidentiality_limit, scheme: Scheme::Tls13 })
    }

    /// What makes the same again, with its secret.
    ///
    /// # Errors
    /// If the AEAD is of an unknown kind, which [`Self::new`] has refused.
    pub(crate) fn state(&self) -> Result<CipherState, Fault> {
        let Self { key, iv, sequence, limit, scheme } = self;
        let same = |protection: &Protection| protection.parts() == (*scheme, key.algorithm());
        let protection = Protection::ALL.into_iter().find(same).ok_or(Fault::INTERNAL)?;
        Ok(CipherState { protection, iv: *iv, sequence: *sequence, limit: *limit })
    }

    /// Goes on where a cipher of this state and secret left off.
    ///
    /// # Errors
    /// If the secret is of another length than the protection needs.
    pub(crate) fn from_state(state: CipherState, secret: &Secret) -> Result<Self, Fault> {
        let CipherState { protection, iv, sequence, limit } = state;
        let (scheme, algorithm) = protection.parts();
        if secret.bytes().len() != protection.secret_len() {
            return Err(Fault::INTERNAL);
        }
        let (key, iv) = if protection.is_tls13() {
            derive(algorithm, secret)?
        } else {
            let unbound = UnboundKey::new(algorithm, secret.bytes()).map_err(|_| Fault::INTERNAL)?;
            (LessSafeKey::new(unbound), iv)
        };
        Ok(Self { key, iv, sequence, limit, scheme })
    }

    /// TLS 1.3: types are inside, and keys can be renewed.
    pub(crate) fn is_tls13(&self) -> bool {
        self.scheme == Scheme::Tls13
    }

    /// No further record may be sealed, save for one that renews the key or ends the connection.
    pub(crate) fn is_used_up(&self) -> bool {
        self.sequence + 1 >= self.limit
    }

    /// So many records more, and the key is used up.
    #[cfg(test)]
    pub(crate) fn expire_after(&mut self, records: u64) {
        self.limit = self.sequence + records + 1;
    }

    #[cfg(test)]
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    #[cfg(test)]
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seals one record of `content` (2^14 bytes at most) into the front of `wire` and says how
    /// long it is there: at most [`OVERHEAD_MAX`] more than the content.
    ///
    /// # Errors
    /// If the key has protected all the records it may, or `wire` is too short.
    pub(crate) fn seal(
        &mut self,
        content_type: ContentType,
        content: Content<'_>,
        wire: &mut [u8],
    ) -> Result<usize, Fault> {
        if self.sequence >= self.limit {
            return Err(Fault::INTERNAL);
        }
        let nonce = self.nonce();
        let inner_type = [content_type as u8];
        let (extra, outer) = match self.scheme {
            Scheme::Tls13 => (&inner_type[..], ContentType::ApplicationData),
            Scheme::Tls12Gcm | Scheme::Tls12ChaCha => (&[][..], content_type),
        };
        let explicit = self.explicit_len();
        let body_len = explicit + content.len() + extra.len() + TAG_LEN;
        let header = Header { content_type: outer, body_len }.to_wire();
        let (head, rest) = wire.split_at_mut_checked(HEADER_LEN + explicit).ok_or(Fault::INTERNAL)?;
        let (body, rest) = rest.split_at_mut_checked(content.len()).ok_or(Fault::INTERNAL)?;
        let tail = rest.get_mut(..extra.len() + TAG_LEN).ok_or(Fault::INTERNAL)?;
        head[..HEADER_LEN].copy_from_slice(&header);
        head[HEADER_LEN..].copy_from_slice(&nonce[NONCE_LEN - explicit..]);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tls12 = self.tls12_aad(content_type as u8, content.len());
        let aad = Aad::from(if self.scheme == Scheme::Tls13 { &header[..] } else { &tls12[..] });
        let sealed = match content {
            Content::Elsewhere(content) => {
                self.key.seal_out_of_place_scatter(nonce, aad, content, body, extra, tail)
            }
            Content::Copied(slices) => {
                let mut at = 0;
                for slice in slices {
                    body[at..at + slice.len()].copy_from_slice(slice);
                    at += slice.len();
                }
                self.key.seal_in_place_scatter(nonce, aad, body, extra, tail)
            }
        };
        sealed.map_err(|_| Fault::INTERNAL)?;
        self.sequence += 1;
        Ok(HEADER_LEN + body_len)
    }

    /// Opens the record of this header and body into the front of `content`, which must be as
    /// long as the body; says what it is and how many bytes.
    ///
    /// # Errors
    /// With the alert that the peer has earned.
    pub(crate) fn open(
        &mut self,
        header: Header,
        body: &[u8],
        content: &mut [u8],
    ) -> Result<(ContentType, usize), Fault> {
        let mut nonce = self.nonce();
        let explicit = self.explicit_len();
        let (head, rest) = body.split_at_checked(explicit).ok_or(Fault::BAD_RECORD_MAC)?;
        let sealed_len = rest.len().checked_sub(TAG_LEN).ok_or(Fault::BAD_RECORD_MAC)?;
        let (sealed, tag) = rest.split_at(sealed_len);
        nonce[NONCE_LEN - explicit..].copy_from_slice(head);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let content = content.get_mut(..sealed_len).ok_or(Fault::INTERNAL)?;
        let (tls12, tls13) = (self.tls12_aad(header.content_type as u8, sealed_len), header.to_wire());
        let aad = Aad::from(if self.scheme == Scheme::Tls13 { &tls13[..] } else { &tls12[..] });
        let opened = self.key.open_separate_gather(nonce, aad, sealed, tag, content);
        opened.map_err(|_| Fault::BAD_RECORD_MAC)?;
        self.sequence += 1;
        let (content_type, len) = if self.scheme == Scheme::Tls13 {
            // Behind the type there are only zeros, as many as the peer likes (RFC 8446 §5.4).
            let at = content.iter().rposition(|byte| *byte != 0).ok_or(Fault::UNEXPECTED_MESSAGE)?;
            (ContentType::of(content[at]).ok_or(Fault::UNEXPECTED_MESSAGE)?, at)
        } else {
            (header.content_type, sealed_len)
        };
        // The padding counts too, and so does the type (RFC 8446 §5.4).
        let longest = PLAINTEXT_MAX + usize::from(self.scheme == Scheme::Tls13);
        if sealed_len > longest { Err(Fault::RECORD_OVERFLOW) } else { Ok((content_type, len)) }
    }

    /// The IV, with the sequence number in it (RFC 8446 §5.3); in TLS 1.2 with AES-GCM the same
    /// serves, so that what rustls has sealed and what is sealed here never share one.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        nonce
    }

    /// Bytes of the nonce on the wire.
    fn explicit_len(&self) -> usize {
        if self.scheme == Scheme::Tls12Gcm { EXPLICIT_LEN } else { 0 }
    }

    /// RFC 5246 §6.2.3.3.
    fn tls12_aad(&self, content_type: u8, len: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8] = content_type;
        aad[9..11].copy_from_slice(&VERSION);
        let len = u16::try_from(len).unwrap_or(u16::MAX); // longer ones have been refused
        aad[11..].copy_from_slice(&len.to_be_bytes());
        aad
    }
}

/// Key and IV of a secret (RFC 8446 §7.3).
fn derive(algorithm: &'static Algorithm, secret: &Secret) -> Result<(LessSafeKey, [u8; NONCE_LEN]), Fault> {
    let mut key = [0; KEY_LEN_MAX];
    let key = key.get_mut(..algorithm.key_len()).ok_or(Fault::INTERNAL)?;
    let mut iv = [0; NONCE_LEN];
    secret.expand(b"key", key)?;
    secret.expand(b"iv", &mut iv)?;
    let unbound = UnboundKey::new(algorithm, key);
    key.zeroize();
    Ok((LessSafeKey::new(unbound.map_err(|_| Fault::INTERNAL)?), iv))
}
