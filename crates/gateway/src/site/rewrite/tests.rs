use proptest::prelude::*;

use super::*;

fn path(text: &str) -> RoutePath {
    RoutePath::parse(text).unwrap()
}

/// `new` in place of `prefix`.
fn replaced(prefix: &str, new: &str) -> Rewrite {
    Rewrite::replace(&path(prefix), &path(new)).unwrap()
}

#[test]
fn what_servers_get() {
    for (prefix, new, cases) in [
        (
            "/wss",
            "/",
            &[
                ("/wss", "/"),
                ("/wss/", "/"),
                ("/wss/x", "/x"),
                ("/wss/x/", "/x/"),
                ("/wss/wss", "/wss"),
                ("/%77ss/x", "/x"),
                ("/wss/a%2Fb%20c", "/a%2Fb%20c"),
                ("/wss/%2F", "/%2F"),
                ("/wss//x", "/x"), // never //x, where x could be taken for a host
                ("/wss///", "/"),
                ("/wss/x//y", "/x//y"),
                ("/wss/x;a=b/\u{e9}", "/x;a=b/\u{e9}"),
            ][..],
        ),
        (
            "/wss",
            "/app",
            &[("/wss", "/app"), ("/wss/", "/app/"), ("/wss/x", "/app/x"), ("/wss//x", "/app//x")],
        ),
        ("/wss/", "/app/", &[("/wss", "/app"), ("/wss/", "/app/"), ("/wss/x", "/app/x")]),
        ("/a/b", "/c", &[("/a/b", "/c"), ("/a/b/", "/c/"), ("/a/b/d", "/c/d"), ("/%61/b/d", "/c/d")]),
        ("/", "/app", &[("/", "/app/"), ("/x", "/app/x")]),
        ("/a", "/a/b", &[("/a", "/a/b"), ("/a/x", "/a/b/x")]),
    ] {
        for (asked, expect) in cases {
            assert_eq!(replaced(prefix, new).forward(asked), *expect, "{prefix} -> {new}: {asked}");
        }
    }
    assert_eq!(Rewrite::replace(&path("/wss"), &path("/wss/")), None);
}

#[test]
fn templates() {
    for (template, cases) in [
        ("/new{rest}", &[("/old", "/new"), ("/old/", "/new/"), ("/old/x", "/new/x")][..]),
        ("/new/{rest}", &[("/old", "/new/"), ("/old/", "/new/"), ("/old/x", "/new/x")]),
        ("{rest}", &[("/old", "/"), ("/old/x", "/x")]),
        ("/one", &[("/old", "/one"), ("/old/x", "/one")]),
        ("/v{rest}/end", &[("/old", "/v/end"), ("/old/x/", "/v/x/end")]),
        ("{rest}.php", &[("/old/x", "/x.php"), ("/old", "/.php")]),
    ] {
        let rewrite = Rewrite::template(&path("/old"), template).unwrap();
        for (asked, expect) in cases {
            assert_eq!(rewrite.forward(asked), *expect, "{template}: {asked}");
        }
        assert_eq!(rewrite.location, template.ends_with("{rest}"), "{template}");
    }
    for (bad, why) in [
        ("new{rest}", "begins with a slash"),
        ("", "begins with a slash"),
        ("/{path}", "only placeholder"),
        ("/$1", "only placeholder"),
        ("/{rest}{rest}", "only placeholder"),
        ("/new?x={rest}", "without ?"),
        ("/new{rest}?x", "without ?"),
        ("/../{rest}", "dot"),
        ("/a b", "spaces"),
    ] {
        let error = Rewrite::template(&path("/old"), bad).expect_err(bad);
        assert!(error.contains(why) || why == "dot" && error.contains(". or .."), "{bad}: {error}");
    }
}

const ASKED: Asked<'_> = Asked { path: "/app/page", host: "Domain.com:8443", server: Some("10.0.0.11:8282") };

#[track_caller]
fn references(rewrite: &Rewrite, asked: Asked<'_>, cases: &[(&str, &str)]) {
    for (reference, expect) in cases {
        let new = rewrite.reference(reference, &asked);
        assert_eq!(new.as_deref().unwrap_or(reference), *expect, "{reference}");
    }
}

#[test]
fn references_come_back_with_the_prefix() {
    let stripped = replaced("/wss", "/");
    references(
        &stripped,
        ASKED,
        &[
            ("/", "/wss/"),
            ("/x", "/wss/x"),
            ("/x/?a=/b#c", "/wss/x/?a=/b#c"),
            ("/a%2Fb", "/wss/a%2Fb"),
            ("/wss/x", "/wss/wss/x"), // it doesn't know the prefix
            ("/./x/../y/.", "/wss/y/"),
            ("/.//evil.test/", "/wss//evil.test/"),
            // Relative to /app/page.
            ("next", "/wss/app/next"),
            ("./next?q", "/wss/app/next?q"),
            ("../up", "/wss/up"),
            ("../../../up", "/wss/up"),
            ("..", "/wss/"),
            ("?q", "?q"),
            ("#f", "#f"),
            ("", ""),
            // With a host.
            ("https://domain.com:8443/x", "https://domain.com:8443/wss/x"),
            ("http://DOMAIN.com:8443", "http://DOMAIN.com:8443/wss/"),
            ("https://domain.com:8443?q", "https://domain.com:8443/wss/?q"),
            ("//domain.com:8443/x", "//domain.com:8443/wss/x"),
            ("http://10.0.0.11:8282/x?y", "/wss/x?y"),
            ("HTTP://10.0.0.11:8282", "/wss/"),
            ("https://domain.com/x", "https://domain.com/x"),
            ("https://other.test:8443/x", "https://other.test:8443/x"),
            ("//other.test/x", "//other.test/x"),
            ("http://domain.com:8443@evil.test/x", "http://domain.com:8443@evil.test/x"),
            ("mailto:a@domain.com", "mailto:a@domain.com"),
            ("app:/x", "app:/x"),
            ("ftp://domain.com:8443/x", "ftp://domain.com:8443/x"),
        ],
    );
    let plain = Asked { host: "domain.com", server: Some("backend:80"), path: "/" };
    references(
        &stripped,
        plain,
        &[
            ("https://domain.com/x", "https://domain.com/wss/x"),
            ("http://domain.com:80/x", "http://domain.com:80/wss/x"),
            ("https://domain.com:443", "https://domain.com:443/wss/"),
            ("http://domain.com:443/x", "http://domain.com:443/x"),
            ("http://backend/x", "/wss/x"),
            ("https://backend/x", "https://backend/x"),
            ("login", "/wss/login"),
        ],
    );
    let ipv6 = Asked { host: "[::1]", server: None, path: "/" };
    references(
        &stripped,
        ipv6,
        &[("http://[::1]/x", "http://[::1]/wss/x"), ("http://[::1]:1/", "http://[::1]:1/")],
    );
}

#[test]
fn references_to_paths_that_no_client_can_ask_for_stay() {
    let cases = [
        ("/app", "/wss"),
        ("/app/", "/wss/"),
        ("/app/x", "/wss/x"),
        ("/a%70p/x", "/wss/x"),
        ("/apple", "/apple"),
        ("/", "/"),
        ("next", "/wss/next"),
        ("../up", "../up"),
        ("http://10.0.0.11:8282/up", "http://10.0.0.11:8282/up"),
    ];
    references(&replaced("/wss", "/app"), ASKED, &cases);
    references(&Rewrite::template(&path("/wss"), "/app/{rest}").unwrap(), ASKED, &cases);
    let added = replaced("/", "/app");
    references(&added, ASKED, &[("/app", "/"), ("/app/x", "/x"), ("/app//evil.test/", "/evil.test/")]);
    let one = Rewrite::template(&path("/wss"), "/one").unwrap();
    references(&one, ASKED, &[("/one", "/one"), ("/x", "/x")]);
}

#[test]
fn refresh() {
    let stripped = replaced("/wss", "/");
    for (field, expect) in [
        ("5; url=/x", "5; url=/wss/x"),
        ("0;URL='/x?y'", "0;URL='/wss/x?y'"),
        ("0, Url=\"http://10.0.0.11:8282/\"", "0, Url=\"/wss/\""),
        ("5", "5"),
        ("5; url=https://other.test/", "5; url=https://other.test/"),
    ] {
        assert_eq!(stripped.refresh(field, &ASKED).as_deref().unwrap_or(field), expect);
    }
}

#[test]
fn groups_of_a_pattern() {
    let rewrite =
        |pattern: &str, template: &str| Rewrite::of_groups(&PathRegex::parse(pattern).unwrap(), template);
    for (pattern, template, asked, got) in [
        ("/users/([0-9]+)/(.*)", "/api/{2}/u{1}", "/users/7/a%20b/c", "/api/a%20b/c/u7"),
        ("/users/([0-9]+)(/x)?", "/u{1}{2}", "/users/7", "/u7"),
        ("/(.*)", "/{1}", "/%41;b", "/A;b"),
        ("/old/.*", "/index.php", "/old/a", "/index.php"),
        // It stays a path, and no host.
        ("/go(.*)", "/{1}", "/go//evil", "/evil"),
    ] {
        let rewrite = rewrite(pattern, template).unwrap();
        assert_eq!(rewrite.forward(asked), got, "{pattern} {template}");
        assert!(rewrite.puts_groups() && !rewrite.is_reversible());
        assert_eq!(rewrite.to_string(), format!("~{pattern} as {template}"));
    }
    for (template, says) in [
        ("new/{1}", "expected a path"),
        ("{1}", "expected a path"),
        ("/new?{1}", "expected a path"),
        ("/$1", "expected a path"),
        ("/{2}", "which has 1 of them"),
        ("/{rest}", "known are {1}"),
        ("/../{1}", "segments"),
    ] {
        let what = rewrite("/a/(.*)", template).unwrap_err();
        assert!(what.contains(says), "{template}: {what}");
    }
}

#[test]
fn cookies() {
    for (new, field, expect) in [
        ("/", "a=b; Path=/; HttpOnly", "a=b; Path=/wss; HttpOnly"),
        ("/", "a=/;path= /x ;Secure", "a=/;path=/wss/x;Secure"),
        ("/", "a=b; Path=/x/", "a=b; Path=/wss/x/"),
        ("/", "path=/x", "path=/x"),
        ("/", "a=b", "a=b"),
        ("/", "a=b; Path=x", "a=b; Path=x"),
        ("/", "a=b; Path", "a=b; Path"),
        ("/", "__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure"),
        ("/", "\u{e9}=b; Path=/", "\u{e9}=b; Path=/wss"),
        ("/app/v1", "a=b; Path=/app/v1", "a=b; Path=/wss"),
        ("/app/v1", "a=b; Path=/app", "a=b; Path=/wss"),
        ("/app/v1", "a=b; Path=/app/v1/", "a=b; Path=/wss/"),
        ("/app/v1", "a=b; Path=/app/v1/x", "a=b; Path=/wss/x"),
        ("/app/v1", "a=b; Path=/app/v12", "a=b; Path=/app/v12"),
        ("/app/v1", "a=b; Path=/", "a=b; Path=/"), // reaches the route as it is
    ] {
        let rewrite = replaced("/wss", new);
        assert_eq!(rewrite.cookie(field).as_deref().unwrap_or(field), expect, "{new}");
    }
}

proptest! {
    #[test]
    fn a_redirect_to_the_path_that_a_server_got_leads_back_to_it(
        prefix in "(/[a-z%/]{1,4}){0,2}",
        new in "(/[a-z]{1,2}){0,3}",
        rest in "(/([a-z0-9._~-]|%2F|%20|;|=|\u{e9}){1,4}){1,4}/?",
    ) {
        let Ok(prefix) = RoutePath::parse(&format!("{prefix}/")) else { return Ok(()) };
        let Some(rewrite) = Rewrite::replace(&prefix, &path(&format!("{new}/"))) else { return Ok(()) };
        let asked = format!("{}{rest}", prefix.0);
        prop_assume!(RequestPath::parse(&asked).is_ok());
        let got = rewrite.forward(&asked);
        prop_assert!(got.starts_with('/') && !got.starts_with("//"));
        prop_assert_eq!(&got, &format!("{new}{rest}"));
        let context = Asked { path: &got, ..ASKED };
        for reference in [got.clone(), format!("http://10.0.0.11:8282{got}")] {
            let back = rewrite.reference(&reference, &context).unwrap_or(reference);
            prop_assert_eq!(&back, &asked);
        }
    }

    #[test]
    fn whatever_stands_in_an_answer_leads_to_no_other_host(
        prefix in "(/[a-z]{1,3}){0,2}",
        new in "(/[a-z]{1,2}){0,2}",
        reference in "[a-z/.?#:@%\\\\]{0,12}",
    ) {
        let Some(rewrite) = Rewrite::replace(&path(&format!("{prefix}/")), &path(&format!("{new}/"))) else { return Ok(()) };
        if let Some(back) = rewrite.reference(&reference, &ASKED) {
            prop_assert!(back.starts_with('/') && !back.starts_with("//"), "{} -> {}", reference, back);
        }
        let _ = (rewrite.cookie(&reference), rewrite.refresh(&reference, &ASKED));
    }
}
