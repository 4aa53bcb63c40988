//! PEM sections (RFC 7468): read where nothing can be mistaken, and never passed over elsewhere.
//!
//! In: the bytes of a file. Out: its sections in their order. Refused: every border (`-----BEGIN …`,
//! `-----END …`) that can't be read, with its line. Read although other programs may refuse it: a byte
//! order mark, indentation (§2: whitespace is ignored), two borders on one line, which is noted.
//!
//! A file may hold a private key, so no message repeats any of its text.

use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN";
const END: &[u8] = b"-----END";
const DASHES: &[u8] = b"-----";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a section holds, by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    Certificate,
    /// OpenSSL's: a certificate, and what it is trusted for behind it.
    TrustedCertificate,
    Pkcs8,
    Pkcs1,
    Sec1,
    /// PKCS #8 with a passphrase, or a section with a header that says so.
    EncryptedKey,
    /// Requests, parameters, revocation lists, public keys: understood, and of no use here.
    OfNoUse,
    /// Something that has to be converted first; says what it is.
    Foreign(&'static str),
    /// A label that is not known here. It isn't repeated.
    Unknown,
}

/// One section.
pub(crate) struct Section {
    /// Of its BEGIN, counted from 1.
    pub(crate) line: usize,
    pub(crate) label: Label,
    pub(crate) der: Vec<u8>,
}

/// The sections of a file.
#[derive(Default)]
pub(crate) struct Pem {
    pub(crate) sections: Vec<Section>,
    /// The first line with two borders.
    pub(crate) glued: Option<usize>,
}

/// A border or a section that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct PemError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: PemFault,
}

/// What is wrong with a section. The file's text is never part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    /// A key as environment variables and templates make them.
    #[error(
        "its line breaks are missing: BEGIN, the text of the section and END stand on lines of their own in \
         PEM, but here they are on one line or are written as \\n; write real line breaks, such as with \
         printf '%b' \"$KEY\""
    )]
    LineBreaks,
    /// BEGIN without an END.
    #[error("a section has a BEGIN line but no END line; is the file complete?")]
    NoEnd,
    /// END without a BEGIN.
    #[error("a section has an END line but no BEGIN line; is the file complete?")]
    NoBegin,
    /// A border that the file's end cuts off.
    #[error("the file ends within a BEGIN or END line; is the file complete?")]
    Cut,
    /// Text before BEGIN or behind END.
    #[error("BEGIN and END must be alone on their lines")]
    NotAlone,
    /// A line that was meant to be a border.
    #[error(
        "it looks like a BEGIN or END line but is not valid: such a line is five hyphens, BEGIN or END, a space, the kind of section, and five hyphens, as in -----BEGIN CERTIFICATE-----"
    )]
    Border,
    /// END of something else than what began.
    #[error("END names another kind of section than BEGIN")]
    OtherEnd,
    /// Nothing between BEGIN and END.
    #[error("the section is empty")]
    Empty,
    /// Something else between BEGIN and END.
    #[error("the section is not valid base64")]
    Base64,
}

/// `bytes` hold at least one border, whole or not.
pub(crate) fn has_border(bytes: &[u8]) -> bool {
    find(bytes, 0, BEGIN).or_else(|| find(bytes, 0, END)).is_some()
        || lines(bytes).any(|line| is_border_like(line) || is_cut_border(line))
}

/// Reads all sections.
///
/// # Errors
/// The first border or section that can't be read.
pub(crate) fn read(text: &[u8]) -> Result<Pem, PemError> {
    let mut pem = Pem::default();
    let mut at = 0;
    let (mut counted, end) = ((0, 1), line_end(text));
    // Not from the file's beginning each time.
    let mut count = |to: usize| {
        counted = (to, counted.1 + line_of(&text[counted.0..to], to - counted.0, end) - 1);
        counted.1
    };
    while let Some(begin) = find(text, at, BEGIN) {
        let fault = |offset, fault| PemError { line: line_of(text, offset, line_end(text)), fault };
        between(text, at, begin)?;
        let before = trim(line_before(text, begin, at));
        let number = count(begin);
        let (label_at, (line, next)) = (begin + BEGIN.len(), line_at(text, begin + BEGIN.len()));
        let Some(close) = find(line, 0, DASHES) else {
            let is_end = next == text.len();
            return Err(fault(begin, if is_end { PemFault::Cut } else { PemFault::Border }));
        };
        if !trim(&line[close + DASHES.len()..]).is_empty() {
            return Err(fault(begin, PemFault::LineBreaks));
        }
        if !before.is_empty() {
            return Err(fault(begin, PemFault::NotAlone));
        }
        let label = &text[label_at..label_at + close];
        let Some(label_text) = label.strip_prefix(b" ").filter(|label| !label.is_empty()) else {
            return Err(fault(begin, PemFault::Border));
        };
        let body_at = label_at + close + DASHES.len();
        let end = match find(text, body_at, DASHES) {
            Some(end) if text[end..].starts_with(END) => end,
            Some(other) if !text[other..].starts_with(BEGIN) && !END.starts_with(&text[other..]) => {
                return Err(fault(other, PemFault::Border));
            }
            _ => return Err(fault(begin, PemFault::NoEnd)),
        };
        if !trim(line_before(text, end, body_at)).is_empty() {
            return Err(fault(end, PemFault::LineBreaks));
        }
        let (line, next) = line_at(text, end + END.len());
        let Some(close) = find(line, 0, DASHES) else {
            let is_end = next == text.len();
            return Err(fault(end, if is_end { PemFault::Cut } else { PemFault::Border }));
        };
        if line[..close] != *label {
            return Err(fault(end, PemFault::OtherEnd));
        }
        at = end + END.len() + close + DASHES.len();
        let behind = trim(&line[close + DASHES.len()..]);
        if behind.starts_with(BEGIN) {
            let line = count(end);
            pem.glued.get_or_insert(line);
        } else if is_cut_border(behind) && next == text.len() {
            return Err(fault(end, PemFault::Cut));
        } else if !behind.is_empty() {
            return Err(fault(end, PemFault::NotAlone));
        }
        let (label, der) = section(label_text, &text[body_at..end]).map_err(|what| fault(begin, what))?;
        pem.sections.push(Section { line: number, label, der });
    }
    between(text, at, text.len())?;
    Ok(pem)
}

/// Text between sections may be anything (§2) but a border.
fn between(text: &[u8], from: usize, to: usize) -> Result<(), PemError> {
    let mut at = from;
    for line in lines(&text[from..to]) {
        let error = |fault| Err(PemError { line: line_of(text, at, line_end(text)), fault });
        if find(line, 0, END).is_some() {
            return error(PemFault::NoBegin);
        }
        if is_border_like(line) {
            return error(PemFault::Border);
        }
        // What was to follow was never written: a chain without its end.
        if at + line.len() == text.len() && is_cut_border(trim(line)) {
            return error(PemFault::Cut);
        }
        at += line.len() + 1;
    }
    Ok(())
}

/// The last bytes of a file that was cut within `-----BEGIN`.
fn is_cut_border(line: &[u8]) -> bool {
    !line.is_empty() && (BEGIN.starts_with(line) || END.starts_with(line))
}

/// Too few hyphens, or the dashes that word processors make of them.
fn is_border_like(line: &[u8]) -> bool {
    let is_dash = |rest: &&[u8]| matches!(rest, [b'-', ..] | [0xe2, 0x80, 0x90..=0x95, ..]);
    let line = trim(line);
    let mut rest = line;
    while is_dash(&rest) {
        rest = &rest[if rest[0] == b'-' { 1 } else { 3 }..];
    }
    let word = rest.trim_ascii_start();
    rest.len() < line.len() && (word.starts_with(b"BEGIN") || word.starts_with(b"END "))
}

/// Reads what is between two borders.
fn section(label: &[u8], body: &[u8]) -> Result<(Label, Vec<u8>), PemFault> {
    let mut label = by_name(label);
    if find(body, 0, b"\\n").is_some() {
        return Err(PemFault::LineBreaks);
    }
    // The base64 alone, as the library reads it whatever stood around it.
    let mut clean = Zeroizing::new(Vec::with_capacity(body.len() + 64));
    clean.extend_from_slice(b"-----BEGIN PRIVATE KEY-----\n");
    let (mut is_header, mut is_empty) = (true, true);
    for line in lines(body).map(trim).filter(|line| !line.is_empty()) {
        // RFC 1421 §4.4: fields come first, and an old key's say that it is encrypted.
        if is_header && line.contains(&b':') {
            if find(line, 0, b"ENCRYPTED").is_some() {
                label = Label::EncryptedKey;
            }
            continue;
        }
        (is_header, is_empty) = (false, false);
        clean.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        clean.push(b'\n');
    }
    if is_empty {
        return Err(PemFault::Empty);
    }
    // They aren't used, whatever they hold; some have checksums and comments of their own.
    if matches!(label, Label::EncryptedKey | Label::OfNoUse | Label::Foreign(_) | Label::Unknown) {
        return Ok((label, Vec::new()));
    }
    clean.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    let read = <(SectionKind, Vec<u8>)>::from_pem_slice(&clean);
    let (_, der) = read.map_err(|_| PemFault::Base64)?; // whose own words quote the text
    Ok((label, der))
}

fn by_name(label: &[u8]) -> Label {
    match label {
        // §5.1: parsers may take the other two for the first.
        b"CERTIFICATE" | b"X509 CERTIFICATE" | b"X.509 CERTIFICATE" => Label::Certificate,
        b"TRUSTED CERTIFICATE" => Label::TrustedCertificate,
        b"PRIVATE KEY" => Label::Pkcs8,
        b"RSA PRIVATE KEY" => Label::Pkcs1,
        b"EC PRIVATE KEY" => Label::Sec1,
        b"ENCRYPTED PRIVATE KEY" => Label::EncryptedKey,
        b"CERTIFICATE REQUEST"
        | b"NEW CERTIFICATE REQUEST"
        | b"X509 CRL"
        | b"EC PARAMETERS"
        | b"DH PARAMETERS"
        | b"X9.42 DH PARAMETERS"
        | b"DSA PARAMETERS"
        | b"PUBLIC KEY"
        | b"RSA PUBLIC KEY" => Label::OfNoUse,
        b"PKCS7" | b"CMS" | b"PKCS #7 SIGNED DATA" => {
            Label::Foreign("PKCS #7; take the certificates out with openssl pkcs7 -print_certs")
        }
        b"PKCS12" => Label::Foreign("PKCS #12; take it apart with openssl pkcs12 -nodes"),
        b"OPENSSH PRIVATE KEY" | b"SSH2 ENCRYPTED PRIVATE KEY" => {
            Label::Foreign("an SSH key, which can't be used with TLS certificates")
        }
        b"DSA PRIVATE KEY" => Label::Foreign("a DSA key, which TLS clients no longer accept"),
        b"PGP PRIVATE KEY BLOCK" | b"PGP PUBLIC KEY BLOCK" | b"PGP MESSAGE" => {
            Label::Foreign("PGP data, which can't be used for TLS")
        }
        _ => Label::Unknown,
    }
}

/// Without whitespace and byte order marks at both ends.
fn trim(line: &[u8]) -> &[u8] {
    let mut line = line.trim_ascii();
    while let Some(rest) = line.strip_prefix(BYTE_ORDER_MARK) {
        line = rest.trim_ascii_start();
    }
    while let Some(rest) = line.strip_suffix(BYTE_ORDER_MARK) {
        line = rest.trim_ascii_end();
    }
    line
}

/// Lines that end with LF, CR, or both; a CR LF makes an empty one more.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| is_line_end(*byte))
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The rest of the line from `at` on, and where the next line begins.
fn line_at(text: &[u8], at: usize) -> (&[u8], usize) {
    let rest = &text[at..];
    match rest.iter().position(|byte| is_line_end(*byte)) {
        Some(len) => (&rest[..len], at + len + 1),
        None => (rest, text.len()),
    }
}

/// What stands before `at` on its line, as far back as `from`.
fn line_before(text: &[u8], at: usize, from: usize) -> &[u8] {
    let before = &text[from..at];
    let start = before.iter().rposition(|byte| is_line_end(*byte)).map_or(0, |end| end + 1);
    &before[start..]
}

/// The line of a byte, counted from 1.
fn line_of(text: &[u8], at: usize, end: u8) -> usize {
    1 + text[..at].iter().filter(|byte| **byte == end).count()
}

/// What ends the lines of a text that are counted.
fn line_end(text: &[u8]) -> u8 {
    if text.contains(&b'\n') { b'\n' } else { b'\r' }
}

fn find(haystack: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    let found = haystack[from..].windows(needle.len()).position(|window| window == needle);
    found.map(|at| from + at)
}

#[cfg(test)]
mod tests;
