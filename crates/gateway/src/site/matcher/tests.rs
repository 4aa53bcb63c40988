use super::*;

fn matcher(text: &str) -> Matcher {
    Matcher::parse(text).unwrap()
}

#[test]
fn routes_without_a_name_are_called_by_what_they_match() {
    let when = When {
        upgrade: Some(true),
        methods: vec![Method::PUT, Method::GET],
        headers: vec![(HeaderName::from_static("x-api"), vec![HeaderValue::from_static("secret")])],
        subprotocols: vec!["mqtt".into()],
    };
    let all = Matcher {
        listeners: vec!["public".into()],
        hosts: ["b.test", "*.a.test"].map(|host| HostPattern::parse(host).unwrap()).into(),
        path: PathMatcher::Regex(PathRegex::parse("/x/(.*)").unwrap()),
        when,
    };
    for (matcher, expect) in [
        (matcher("Domain.com/wss/"), "domain.com/wss"),
        (matcher("/"), "/"),
        (Matcher { path: PathMatcher::Exact(ExactPath::parse("/x/").unwrap()), ..matcher("/") }, "=/x/"),
        (
            all.clone(),
            "*.a.test,b.test~/x/(.*)[listener=public,upgrade=true,method=GET|PUT,header=x-api,subprotocol=mqtt]",
        ),
    ] {
        assert_eq!(matcher.id().as_str(), expect);
    }
    assert_eq!((all.conditions(), matcher("/").conditions()), (5, 0));
    let other = When {
        headers: vec![(HeaderName::from_static("x-api"), vec![HeaderValue::from_static("other")])],
        ..all.when.clone()
    };
    let other = Matcher { when: other, ..all.clone() };
    assert_eq!(other.id().as_str(), all.id().as_str(), "values of fields are not shown");
    assert_ne!(other.id(), all.id());
    let reordered = Matcher { hosts: all.hosts.iter().rev().cloned().collect(), ..all.clone() };
    assert_eq!(reordered.id(), all.id());
}

#[test]
fn patterns_match_whole_paths_and_are_bounded() {
    let regex = PathRegex::parse(r"/user/(\d+)|/me").unwrap();
    let path = |text| RequestPath::parse(text).unwrap();
    assert_eq!(regex.groups(), 1);
    assert_eq!(regex.captures(&path("/user/%317")).unwrap().get(1).unwrap().as_str(), "17");
    for other in ["/user/", "/user/1/", "/x/user/1", "/me/x", "/x/me"] {
        assert!(regex.captures(&path(other)).is_none(), "{other}");
    }
    for (bad, why) in
        [("/(", "no regular expression: unclosed group"), ("/(a{1000}){1000}", "needs more than 1 MiB")]
    {
        let error = PathRegex::parse(bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
    // A pattern that takes other engines an age.
    let slow = PathRegex::parse("/(a+)+b").unwrap();
    assert!(!slow.is_match(&format!("/{}", "a".repeat(8000))));
}
