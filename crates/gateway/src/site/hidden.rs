//! Values of the configuration that came from the environment: what people read has the names of their variables. Pure.

/// Values, and the names of their variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hidden {
    /// The longest value first.
    values: Vec<(String, String)>,
}

impl Hidden {
    /// From now on the value of the variable `name` is hidden.
    pub fn add(&mut self, value: &str, name: &str) {
        let quoted = format!("{value:?}"); // as messages quote it
        for value in [quoted.trim_matches('"'), value] {
            let pair = (value.to_owned(), name.to_owned());
            if !value.is_empty() && !self.values.contains(&pair) {
                self.values.push(pair);
            }
        }
        self.values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    }

    /// A text with `${NAME}` in place of every value that is a word of its own, in small letters or capitals.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        if self.values.is_empty() {
            return text.to_owned();
        }
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        while let Some(first) = rest.chars().next() {
            let (len, last) = match self.values.iter().find(|(value, _)| begins_with(rest, value, before)) {
                Some((value, name)) => {
                    shown.push_str("${");
                    shown.push_str(name);
                    shown.push('}');
                    (value.len(), value.chars().next_back())
                }
                None => {
                    shown.push(first);
                    (first.len_utf8(), Some(first))
                }
            };
            (before, rest) = (last, rest.get(len..).unwrap_or_default());
        }
        shown
    }
}

/// `text`, which stands behind `before`, begins with `word`, and no letter or digit goes on with it.
fn begins_with(text: &str, word: &str, before: Option<char>) -> bool {
    let Some((head, behind)) = text.split_at_checked(word.len()) else { return false };
    let is_one_word = |a: Option<char>, b: Option<char>| {
        a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric)
    };
    head.eq_ignore_ascii_case(word)
        && !is_one_word(before, word.chars().next())
        && !is_one_word(word.chars().next_back(), behind.chars().next())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_hidden_where_they_are_words() {
        let mut hidden = Hidden::default();
        for (value, name) in [("Domain.com", "HOST"), ("8443", "PORT"), ("", "EMPTY"), ("a\"b", "TOKEN")] {
            hidden.add(value, name);
        }
        for (text, shown) in [
            ("http://domain.com:8443/x", "http://${HOST}:${PORT}/x"),
            ("my.domain.com, domain.community, 18443", "my.${HOST}, domain.community, 18443"),
            ("found \"a\\\"b\"", "found \"${TOKEN}\""),
            ("ü8443 8443", "ü8443 ${PORT}"),
            ("", ""),
        ] {
            assert_eq!(hidden.hide(text), shown, "{text}");
        }
        assert_eq!(Hidden::default().hide("8443"), "8443");
    }

    proptest! {
        #[test]
        fn no_value_is_shown(value in "[b-zü]{1,4}", before in "[ /:]{1,3}", behind in "[ /:]{0,3}") {
            let mut hidden = Hidden::default();
            hidden.add(&value, "A");
            prop_assert_eq!(hidden.hide(&format!("{before}{value}{behind}")), format!("{before}${{A}}{behind}"));
        }
    }
}
