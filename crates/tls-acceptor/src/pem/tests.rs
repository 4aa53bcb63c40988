use proptest::prelude::*;

use super::*;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAEC\nAwQF\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nBgcI\n-----END PRIVATE KEY-----\n";

#[track_caller]
fn sections(text: &str) -> Vec<(Label, Vec<u8>)> {
    let pem = read(text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"));
    pem.sections.into_iter().map(|section| (section.label, section.der)).collect()
}

#[track_caller]
fn fault(text: &str, line: usize, fault: PemFault) {
    match read(text.as_bytes()) {
        Err(error) => assert_eq!((error.line, error.fault), (line, fault), "{text:?}"),
        Ok(pem) => panic!("{text:?}: {} sections", pem.sections.len()),
    }
}

/// Whatever editors, terminals and scripts make of a good file, as long as it means one thing.
#[test]
fn what_can_not_be_mistaken_is_read() {
    let whole = CERTIFICATE.to_owned() + KEY;
    let expect = [(Label::Certificate, vec![0, 1, 2, 3, 4, 5]), (Label::Pkcs8, vec![6, 7, 8])];
    let indented: String = whole.lines().map(|line| format!("\t  {line}  \n")).collect();
    for text in [
        whole.clone(),
        format!("\u{feff}{whole}"),
        format!("{CERTIFICATE}\u{feff}{KEY}"),
        format!("\u{feff}{indented}"),
        indented,
        whole.replace('\n', "\r\n"),
        whole.replace('\n', "\r"),
        whole.replace('\n', "\n\n"),
        whole.trim_end().to_owned(),
        whole.replace("CERTIFICATE-----\n-----BEGIN", "CERTIFICATE----------BEGIN"),
        whole.replace("BEGIN CERTIFICATE", "BEGIN X509 CERTIFICATE").replace("END C", "END X509 C"),
        format!("subject=CN = a\nBag Attributes\n    localKeyID: 01 \n{CERTIFICATE}# the key\n{KEY}# end\n"),
        KEY.replace("KEY-----\nB", "KEY-----\nProc-Type: 4\nX: y\n\nB").replace(KEY, &whole),
    ] {
        if text.contains("Proc-Type") {
            assert_eq!(sections(&text), expect[1..], "{text:?}");
        } else {
            assert_eq!(sections(&text), expect, "{text:?}");
        }
    }
}

#[test]
fn two_borders_on_a_line_are_read_and_noted() {
    let glued = format!("{}{KEY}", CERTIFICATE.trim_end());
    let pem = read(glued.as_bytes()).unwrap();
    assert_eq!((pem.sections.len(), pem.sections[1].line, pem.glued), (2, 4, Some(4)));
    assert_eq!(read(CERTIFICATE.as_bytes()).unwrap().glued, None);
}

#[test]
fn what_is_not_for_servers_has_its_label() {
    let labelled = |label: &str| CERTIFICATE.replace("CERTIFICATE", label);
    for (label, expect) in [
        ("TRUSTED CERTIFICATE", Label::TrustedCertificate),
        ("EC PRIVATE KEY", Label::Sec1),
        ("RSA PRIVATE KEY", Label::Pkcs1),
        ("ENCRYPTED PRIVATE KEY", Label::EncryptedKey),
        ("CERTIFICATE REQUEST", Label::OfNoUse),
        ("EC PARAMETERS", Label::OfNoUse),
        ("SOMETHING NEW", Label::Unknown),
    ] {
        assert_eq!(sections(&labelled(label))[0].0, expect, "{label}");
    }
    for label in ["PKCS7", "OPENSSH PRIVATE KEY", "DSA PRIVATE KEY", "PGP MESSAGE", "PKCS12"] {
        assert!(matches!(sections(&labelled(label))[0].0, Label::Foreign(_)), "{label}");
    }
    let old = KEY.replace("KEY-----\nB", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nB");
    assert_eq!(sections(&old)[0].0, Label::EncryptedKey);
}

/// As environment variables, templates and JSON hold them.
#[test]
fn a_key_on_one_line_is_named_as_such() {
    let line = KEY.trim_end();
    for text in [
        line.replace('\n', "\\n"),
        line.replace('\n', " "),
        line.replace('\n', ""),
        line.replace('\n', "\\r\\n"),
        format!("key = \"{}\"", line.replace('\n', "\\n")),
        line.replace("\n-----END", " -----END"),
        line.replace("\n-----END", "-----END"),
        line.replace("KEY-----\n", "KEY-----"),
        line.replace("BgcI", "BgcI\\nBgcI"),
    ] {
        let error = read(text.as_bytes()).err().unwrap_or_else(|| panic!("{text:?}"));
        assert_eq!(error.fault, PemFault::LineBreaks, "{text:?}");
    }
}

#[test]
fn every_other_border_is_a_fault() {
    let begin = "-----BEGIN CERTIFICATE-----";
    let end = "-----END CERTIFICATE-----";
    fault(begin, 1, PemFault::NoEnd);
    fault(&format!("\n\n{begin}\nAAEC\n"), 3, PemFault::NoEnd);
    fault(&format!("{begin}\nAAEC\n{KEY}"), 1, PemFault::NoEnd);
    fault(&format!("AAEC\n{end}\n"), 2, PemFault::NoBegin);
    fault(&format!("{CERTIFICATE}AAEC\n{end}\n"), 6, PemFault::NoBegin);
    fault(&format!("{begin}\nAAEC\n-----END CERTIF"), 3, PemFault::Cut);
    fault("-----BEGIN CERT", 1, PemFault::Cut);
    fault("-----BEGIN CERT\n", 1, PemFault::Cut);
    fault("-----BEGIN CERT\nAAEC\n", 1, PemFault::Border);
    fault(&format!("{begin}\nAAEC\n-----END CERTIF\n"), 3, PemFault::Cut);
    fault(&format!("{begin}\nAAEC\n-----END CERTIF\n\n"), 3, PemFault::Border);
    for len in 1..9 {
        fault(&format!("{CERTIFICATE}{}", &begin[..len]), 5, PemFault::Cut);
        fault(&format!("{}{}", CERTIFICATE.trim_end(), &begin[..len]), 4, PemFault::Cut);
    }
    fault(&format!("a {CERTIFICATE}"), 1, PemFault::NotAlone);
    fault(&format!("{} %\n", CERTIFICATE.trim_end()), 4, PemFault::NotAlone);
    fault(&format!("{begin}\nAAEC\n-----END PRIVATE KEY-----\n"), 3, PemFault::OtherEnd);
    fault(&format!("{begin}\n{end}\n"), 1, PemFault::Empty);
    fault(&format!("{begin}\nAA!C\n{end}\n"), 1, PemFault::Base64);
    fault(&format!("{begin}\nAAECA\n{end}\n"), 1, PemFault::Base64);
    for border in [
        "----BEGIN CERTIFICATE-----",
        "-BEGIN CERTIFICATE-----",
        "–––––BEGIN CERTIFICATE–––––",
        "—–BEGIN CERTIFICATE—–",
        "---- BEGIN SSH2 PUBLIC KEY ----",
        "----- BEGIN CERTIFICATE -----",
        "-----BEGIN CERTIFICATE---",
        "-----BEGIN-----",
        "-----BEGINCERTIFICATE-----",
    ] {
        fault(&format!("{CERTIFICATE}{border}\nAAEC\n{end}\n"), 5, PemFault::Border);
    }
    fault(&format!("{begin}\nAAEC\n----- END CERTIFICATE-----\n{CERTIFICATE}"), 3, PemFault::Border);
}

#[test]
fn borders_are_found_whole_or_not() {
    for text in [
        "x\n-----BEGIN",
        "x\n-----END",
        "x\n----BEGIN CERTIFICATE-----\n",
        "x\n---- END CERTIFICATE-----\n",
        "x\n-----BEG",
        "x\n-",
    ] {
        assert!(has_border(text.as_bytes()), "{text:?}");
    }
    for text in ["", "AAEC\nAwQF\n", "BEGIN CERTIFICATE\nEND CERTIFICATE\n", "\u{1}--\u{2}"] {
        assert!(!has_border(text.as_bytes()), "{text:?}");
    }
    // Words alone are a comment.
    assert_eq!(sections(&format!("BEGIN of ours\n{KEY}END of ours\n")).len(), 1);
}

/// As many sections as a file may hold are read in a moment, each with its line.
#[test]
fn many_sections_cost_no_more_each() {
    let text = KEY.repeat(1024 * 1024 / KEY.len());
    let started = std::time::Instant::now();
    let pem = read(text.as_bytes()).unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(pem.sections.iter().enumerate().all(|(i, section)| section.line == 1 + 3 * i));
}

#[test]
fn no_message_repeats_the_text() {
    for text in
        [KEY.replace("BgcI", "SECRET!"), KEY.replace("PRIVATE", "SECRET"), KEY.replace('\n', "SECRET")]
    {
        let said = match read(text.as_bytes()) {
            Err(error) => format!("{error} {error:?}"),
            Ok(pem) => format!("{:?}", pem.sections[0].label),
        };
        assert!(!said.contains("SECRET"), "{said}");
    }
}

proptest! {
    /// Whatever is done to a good file: nothing panics, and every BEGIN is a section or an error.
    #[test]
    fn nothing_is_passed_over(at in 0usize..200, cut in 0usize..40, put in "(-{1,12}|[ \n\\\\a-z]{0,6}|-----BEGIN|-----END)") {
        let mut text = (CERTIFICATE.to_owned() + KEY + CERTIFICATE).into_bytes();
        let at = at.min(text.len());
        let cut = (at + cut).min(text.len());
        text.splice(at..cut, put.bytes());
        if let Ok(pem) = read(&text) {
            let begins = text.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
            prop_assert_eq!(pem.sections.len(), begins);
        }
    }
}
