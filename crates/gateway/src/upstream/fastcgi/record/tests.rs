use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What also holds for the fuzz target.
#[path = "../../../../fuzz/relations/fastcgi_records.rs"]
mod relations;

use relations::read;

fn record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let mut out = vec![1, kind];
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&u16::try_from(content.len()).unwrap().to_be_bytes());
    out.extend_from_slice(&[padding, 0xee]);
    out.extend_from_slice(content);
    out.extend(std::iter::repeat_n(0xaa, padding.into()));
    out
}

fn out(text: &'static str) -> Said {
    Said::Out(Bytes::from_static(text.as_bytes()))
}

#[test]
fn what_servers_say() {
    let complete = [0, 0, 1, 0, 0, 0, 0, 0];
    let wire = [
        record(STDOUT, 1, b"ab", 6),
        record(STDERR, 1, b"oh", 0),
        record(10, 0, b"values", 2),
        record(STDOUT, 1, b"c", 255),
        record(STDOUT, 1, b"", 0),
        record(END_REQUEST, 1, &complete, 0),
    ];
    let error = Said::Error(Bytes::from_static(b"oh"));
    let expect = [out("ab"), error, out("c"), Said::End(Ending::Complete(256))];
    assert_eq!(read(&[&wire.concat()]).unwrap(), expect);
    for (status, ending) in [(1, Ending::Refused(1)), (2, Ending::Overloaded), (3, Ending::Refused(3))] {
        let wire = record(END_REQUEST, 1, &[0, 0, 0, 0, status, 0, 0, 0], 3);
        assert_eq!(read(&[&wire]).unwrap(), [Said::End(ending)]);
    }
}

#[test]
fn what_servers_may_not_say() {
    for (wire, expect) in [
        (b"HTTP/1.1 400 Bad Request".to_vec(), BadRecord::Version(b'H')),
        (vec![0], BadRecord::Version(0)),
        (record(STDOUT, 2, b"a", 0), BadRecord::Request(2)),
        (record(STDOUT, 0, b"a", 0), BadRecord::Request(0)),
        (record(END_REQUEST, 0, &[0; 8], 0), BadRecord::Request(0)),
        (record(END_REQUEST, 1, &[0; 7], 0), BadRecord::End(7)),
        (record(END_REQUEST, 1, &[], 0), BadRecord::End(0)),
        (record(STDIN, 1, b"a", 0), BadRecord::Type(STDIN)),
        (record(10, 1, b"a", 0), BadRecord::Type(10)),
        (record(99, 0, b"a", 0), BadRecord::Type(99)),
    ] {
        assert_eq!(read(&[&wire]), Err(expect));
    }
}

#[test]
fn a_request_begins_with_its_variables() {
    let header = |kind, high, low| [1, kind, 0, 1, high, low, 0, 0];
    let begun = [&header(1, 0, 8)[..], &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(begin(b""), [&begun[..], &header(4, 0, 0)].concat());
    assert_eq!(begin(b"ab"), [&begun[..], &header(4, 0, 2), b"ab", &header(4, 0, 0)].concat());
    let long = vec![b'x'; CONTENT_LEN_MAX + 1];
    let (first, second) = long.split_at(CONTENT_LEN_MAX);
    let parts =
        [&begun[..], &header(4, 0xff, 0xf8), first, &header(4, 0, 1), second, &header(4, 0, 0)].concat();
    assert!(begin(&long) == parts);
    assert_eq!(stdin(65_528), header(5, 0xff, 0xf8));
}

fn any_record() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(STDOUT), Just(STDERR), Just(END_REQUEST), Just(10), any::<u8>()];
    let content = proptest::collection::vec(any::<u8>(), 0..20);
    (kind, 0_u16..3, content, 0_u8..9).prop_map(|(kind, id, content, padding)| {
        record(kind, if kind < 9 { id.max(1) } else { id }, &content, padding)
    })
}

proptest! {
    #[test]
    fn any_cut_says_the_same(
        records in proptest::collection::vec(any_record(), 0..6),
        cuts in proptest::collection::vec(any::<Index>(), 0..6),
    ) {
        let wire = records.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([wire.len()]) {
            pieces.push(&wire[from..cut]);
            from = cut;
        }
        prop_assert_eq!(read(&pieces), read(&[&wire]));
    }
}

#[test]
fn what_fuzzing_has_found_is_read_as_it_should_be() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/fastcgi_records");
    let files = std::fs::read_dir(corpus).unwrap();
    let count = files.map(|file| relations::records(&std::fs::read(file.unwrap().path()).unwrap())).count();
    assert!(count > 5, "{count}");
}
