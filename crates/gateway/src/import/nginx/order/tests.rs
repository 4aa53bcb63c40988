//! Locations in any order and depth: nginx's rules, and our routes by what is made of them.

use std::path::Path;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::super::choice::choose;
use super::super::location::{Form, Location, collect};
use super::super::parse::parse;
use super::super::scope::Scope;
use super::super::tests::{context, import};
use crate::config::Config;
use crate::import::sheet::Section;
use crate::import::sources::Memory;
use crate::site::matcher::Criteria;
use crate::site::path::RequestPath;
use crate::site::routes::Routes;

/// Locations in each other, as texts of nginx; each answers with its own text.
fn locations() -> impl Strategy<Value = String> {
    const PATHS: [&str; 22] = [
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/ab",
        "/a/b/",
        "= /a",
        "= /a/b",
        "= /a/x.php",
        "^~ /a",
        "^~ /a/",
        "^~ /a/b/",
        "^~ /",
        "~ \\.php$",
        "~* \\.(PHP|b)$",
        "~ ^/a/(.*)$",
        "~ /b",
        "~ ^/a/b$",
        "~ a$",
        "~ /\\.",
        "~ ^/(?!a/)",
        "~ ^/a|x",
    ];
    let path = proptest::sample::select(&PATHS[..]);
    let inner = proptest::collection::vec(proptest::sample::select(&PATHS[1..]), 0..3);
    proptest::collection::vec((path, inner), 1..6).prop_map(|levels| {
        let mut number = 0;
        let mut next = || {
            number += 1;
            format!("return 200 L{number};")
        };
        let mut text = String::new();
        let mut seen = Vec::new();
        for (path, inner) in levels {
            if seen.contains(&path.trim_start_matches("^~ ")) {
                continue; // nginx refuses the same path again
            }
            seen.push(path.trim_start_matches("^~ "));
            let prefix = path.trim_start_matches("^~ ");
            text += &format!("location {path} {{ {}", next());
            let mut seen = Vec::new();
            for one in inner.into_iter().filter(|_| !path.starts_with('=')) {
                let bare = one.trim_start_matches("^~ ").trim_start_matches("= ");
                // nginx refuses those that are outside of the one around them.
                if seen.contains(&bare)
                    || !one.starts_with('~') && (path.starts_with('~') || !bare.starts_with(prefix))
                {
                    continue;
                }
                seen.push(bare);
                text += &format!(" location {one} {{ {} }}", next());
            }
            text += " }\n";
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    /// Our routes choose as nginx does, or it is said that they don't.
    #[test]
    fn each_path_is_for_the_location_that_nginx_chooses(text in locations(), path in "/(a|b|ab|x)?(/(a|b|x|\\.h))?(/|\\.php|\\.PHP|x)?") {
        prop_assume!(!path.contains("//")); // the gateway refuses it
        let file = format!("server {{ listen 80; root /w;\n{text} }}");
        let mut memory = Memory::of(&[("/etc/nginx/nginx.conf", &file)]);
        let parsed = parse(&mut memory, Path::new("/etc/nginx/nginx.conf"), Path::new("/etc/nginx")).unwrap();
        let (toml, remarks) = import(&file);
        let scope = Scope::default().inside(parsed.directives[0].inside());
        let mut found = Vec::new();
        collect(&mut context(), &scope, None, &mut Section::default(), &mut found);
        let expect = choose(&found, &path).map_or("/w".to_owned(), |number| {
            format!("L{}", found[number].directive.unwrap().inside()[0].arg(1).trim_start_matches('L'))
        });
        let (config, problems) = Config::parse(Path::new("test.toml"), &toml);
        prop_assert_eq!(problems, [], "{}", toml);
        let (request, headers) = (RequestPath::parse(&path).unwrap(), HeaderMap::new());
        let criteria = Criteria {
            listener: "http",
            bound: false,
            host: "a.test",
            path: &request,
            method: &Method::GET,
            headers: &headers,
            upgrade: false,
        };
        let routes = Routes::new(&config.routes);
        let shown = format!("{:?}", routes.find(&criteria).unwrap().unwrap().action);
        let is_same = shown.contains(&format!("{expect}\""));
        prop_assert!(is_same || is_told(&path, &found, &remarks), "{file}{path}: {expect}, not {shown}\n{toml}\n{remarks:?}");
    }
}

/// It is said that requests for this path are answered otherwise.
fn is_told(path: &str, found: &[Location<'_>], remarks: &[String]) -> bool {
    let of_segments = remarks.iter().filter_map(|remark| {
        let (_, prefix) = remark.split_once("whole segments here: paths such as ")?;
        prefix.split_once("x, which")
    });
    let is_in_segment = |(prefix, _): (&str, &str)| {
        path.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    };
    // A path takes itself without its slash, too (docs/import.md).
    let with_slash = format!("{path}/");
    let has_slash = |location: &Location<'_>| match &location.form {
        Form::Prefix(prefix) | Form::Stop(prefix) => *prefix == with_slash,
        _ => false,
    };
    of_segments.into_iter().any(is_in_segment)
        || found.iter().any(has_slash)
        || remarks.iter().any(|remark| remark.contains("for instance, goes to another route"))
}
