//! Files that include others, and values that come from the environment.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::config::{Config, Problem, across};
use crate::lifecycle::{ConfigSource, load};

const FIRST: &str = r#"include = ["sites/*.toml", "more.toml"]
[[listener]]
address = "127.0.0.1:${PORT:-8080}"
tls = false
[[route]]
path = "/"
service = "echo"
"#;

fn variables(name: &str) -> Option<OsString> {
    match name {
        "BACKEND" => Some("10.1.2.3:8282".into()),
        "BAD" => Some("not-an-address".into()),
        _ => None,
    }
}

fn read(first: &str, files: &[(&str, &str)]) -> (Config, Vec<String>, TempDir) {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let (config, problems) = Config::parse_with(&directory.path().join("wssgate.toml"), first, &variables);
    let shown = |problem: Problem| {
        let root = format!("{}/", directory.path().display());
        problem.to_string().replace(&root, "")
    };
    (config, problems.into_iter().map(shown).collect(), directory)
}

#[test]
fn sections_of_all_files_stand_one_behind_the_other() {
    let (config, problems, directory) = read(
        FIRST,
        &[
            ("sites/b.toml", "[[route]]\npath = \"/b\"\nproxy = \"http://${BACKEND}\"\n"),
            (
                "sites/a.toml",
                "[[route]]\npath = \"/a\"\nfiles = \"www\"\n[[upstream]]\nname = \"u\"\nservers = [\"http://127.0.0.1:1\"]",
            ),
            ("sites/.hidden.toml", "broken ="),
            ("sites/notes.txt", "broken ="),
            ("more.toml", "[admin]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/m\"\nproxy = \"u\""),
        ],
    );
    assert_eq!(problems, Vec::<String>::new());
    let ids: Vec<_> = config.routes.iter().map(|route| route.id.to_string()).collect();
    assert_eq!(ids, ["/", "/a", "/b", "/m"]);
    let names: Vec<_> =
        config.included.iter().map(|path| path.strip_prefix(directory.path()).unwrap()).collect();
    assert_eq!(names, ["sites/a.toml", "sites/b.toml", "more.toml"].map(Path::new));
    assert_eq!(config.listeners[0].address.port(), 8080);
    assert_eq!(config.routes[2].action.to_string(), "10.1.2.3:8282");
    assert!(config.admin.is_some());
    // Relative to the file that names it.
    assert_eq!(config.file_directories[0].0, directory.path().join("sites/www"));
    let problem = config.problem(config.file_directories[0].1, "found 10.1.2.3:8282");
    assert!(problem.to_string().ends_with("sites/a.toml:3:9: found ${BACKEND}"), "{problem}");
}

#[test]
fn problems_name_their_file() {
    let good = "[[route]]\npath = \"/b\"\nservice = \"echo\"\n";
    for (first, files, expected) in [
        (
            FIRST,
            vec![("more.toml", "[[route]]\npaht = \"/b\"")],
            "more.toml:2:1: unknown key \"paht\" in [[route]]; did you mean path?",
        ),
        (FIRST, vec![], "wssgate.toml:1:28: include: more.toml can't be read: No such file"),
        (
            FIRST,
            vec![("more.toml", "\nworkers = 2")],
            "more.toml:2:1: workers belongs to the top level of the configuration file",
        ),
        (FIRST, vec![("more.toml", "include = \"x\"")], "more.toml:1:1: include belongs to the top level"),
        (
            FIRST,
            vec![("more.toml", good), ("sites/x.toml", good)],
            "more.toml:1:1: the route /b exists already (sites/x.toml:1); only one of them can be used",
        ),
        (FIRST, vec![("more.toml", "[[route]]\npath = ")], "more.toml:2:"),
        (
            FIRST,
            vec![("more.toml", "[admin]"), ("sites/x.toml", "[admin]")],
            "more.toml:1:2: [admin] stands at sites/x.toml:1 already; a configuration has one",
        ),
        (FIRST, vec![("more.toml", "typo = 1")], "more.toml:1:1: unknown key \"typo\" in the top level"),
        (
            "include = \"[\"\n[[listener]]\naddress = \"127.0.0.1:1\"\ntls = false\n[[route]]\nservice = \"echo\"\npath = \"/\"",
            vec![],
            "wssgate.toml:1:11: include: \"[\" is not a pattern of files",
        ),
        (
            "include = \"sites/**\"",
            vec![],
            "wssgate.toml:1:11: include: expected a file or a pattern, found \"sites/**\"",
        ),
        (
            FIRST,
            vec![("more.toml", "[[route]]\npath = \"/x\"\nproxy = \"http://${NONE}\"")],
            "more.toml:3:9: the variable NONE is not set",
        ),
        (FIRST, vec![("more.toml", "[[listener]]\naddress = \"${BAD}\"")], "more.toml:2:11: address: "),
    ] {
        let (_, problems, _directory) = read(first, &files);
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}\n{problems:#?}");
        assert!(problems.iter().all(|problem| !problem.contains("not-an-address")), "{problems:#?}");
    }
}

#[test]
fn a_pattern_that_no_file_matches_is_a_warning() {
    let first = FIRST.replace("sites/*.toml", "site/*.toml").replace("\"more.toml\"", "\"sites/*.toml\"");
    let (config, problems, _directory) = read(&first, &[("sites/a.toml", "")]);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(config.unmatched, ["site/*.toml"]);
    let warnings = across::warnings(&config, &tls_acceptor::Loaded::default().set);
    assert_eq!(warnings, ["include: no file matches site/*.toml; correct it, or put a file there"]);
}

#[test]
fn a_value_without_its_variable_is_one_problem() {
    let route = "[[route]]\npath = \"/x\"\n";
    for (more, place) in [
        ("proxy = \"${NONE}\"", "3:9"),
        ("proxy = \"http://${NONE\"", "3:9"),
        ("proxy = [\"http://${NONE}\", \"http://a\"]", "3:10"),
        ("service = \"echo\"\n[route.access.jwt]\njwks = \"${NONE}\"", "5:8"),
    ] {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("wssgate.toml");
        let text = format!("{route}{more}\n[[listener]]\naddress = \"127.0.0.1:1\"\ntls = false\n");
        fs::write(&file, text).unwrap();
        let problems = load(&ConfigSource::File(file), None).unwrap_err().0;
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(shown.len() == 1 && shown[0].contains(&format!("wssgate.toml:{place}: ")), "{shown:?}");
    }
}

#[test]
fn a_file_is_read_once() {
    let first = FIRST.replace("\"more.toml\"", "\"sites/a.toml\", \"*.toml\"");
    let (config, problems, _directory) = read(
        &first,
        &[("sites/a.toml", "[[route]]\npath = \"/a\"\nservice = \"echo\""), ("wssgate.toml", &first)],
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(config.included.len(), 1);
}

#[test]
fn what_is_no_file_is_a_problem() {
    let first = FIRST.replace("\"more.toml\"", "\"sites\"");
    let (_, problems, _directory) = read(&first, &[("sites/a.toml", "")]);
    assert!(
        problems.len() == 1 && problems[0].ends_with("include: sites can't be read: it is no file"),
        "{problems:?}"
    );
}
