//! The words of an nginx file, by the rules of its own reader (`ngx_conf_read_token`). Pure.
//!
//! A word ends at a blank, `;` or `{`, but `${` belongs to it. Quotes and `#` mean something at the beginning of a word
//! alone; behind a closing quote the word has to end. A backslash keeps the next character from meaning anything; it
//! disappears in front of quotes and of itself, and with `n`, `r` and `t` it is the control character.

/// The longest word that nginx takes, which has one buffer for it.
const WORD_LEN_MAX: usize = 4096;

/// What stands next in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Without quotes and escapes.
    Word(String),
    /// `;`
    Semicolon,
    /// `{`
    Open,
    /// `}`
    Close,
    /// The end of the file.
    End,
}

/// What nginx wouldn't read either, and the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub line: usize,
    pub what: String,
}

/// Reads the words of one file.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    /// That of the byte in front of `rest`, counted from 1.
    line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, line: 1 }
    }

    /// The next token, and the line that it begins on.
    pub(super) fn token(&mut self) -> Result<(usize, Token), Unreadable> {
        self.skip_blanks();
        let line = self.line;
        let Some(&first) = self.rest.first() else { return Ok((line, Token::End)) };
        let sign = match first {
            b';' => Token::Semicolon,
            b'{' => Token::Open,
            b'}' => Token::Close,
            0xef if self.rest.starts_with(b"\xef\xbb\xbf") => {
                let what = "a byte order mark (U+FEFF), which nginx takes for a part of the word; remove it";
                return Err(Unreadable { line, what: what.to_owned() });
            }
            quote @ (b'"' | b'\'') => {
                self.advance();
                return self.quoted(line, quote);
            }
            _ => return self.bare(line),
        };
        self.advance();
        Ok((line, sign))
    }

    /// Blanks and comments. A comment may have any bytes.
    fn skip_blanks(&mut self) {
        while let Some(&byte) = self.rest.first() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.advance(),
                b'#' => {
                    let len = self.rest.iter().position(|byte| *byte == b'\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[len..];
                }
                _ => return,
            }
        }
    }

    fn bare(&mut self, line: usize) -> Result<(usize, Token), Unreadable> {
        let text = self.rest;
        let mut is_behind_dollar = false;
        while let Some(&byte) = self.rest.first() {
            match byte {
                b'{' if is_behind_dollar => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => self.advance(),
                _ => {}
            }
            is_behind_dollar = byte == b'$';
            self.advance();
        }
        self.word(line, &text[..text.len() - self.rest.len()])
    }

    fn quoted(&mut self, line: usize, quote: u8) -> Result<(usize, Token), Unreadable> {
        let text = self.rest;
        loop {
            match self.rest.first() {
                None => {
                    let what = format!("the {} that begins here has no end", char::from(quote));
                    return Err(Unreadable { line, what });
                }
                Some(&byte) if byte == quote => break,
                Some(b'\\') => self.advance(),
                Some(_) => {}
            }
            self.advance();
        }
        let word = &text[..text.len() - self.rest.len()];
        self.advance();
        // `if ("$a" = "b")` has a parenthesis there, which begins a word of its own.
        let may_follow = b" \t\r\n;{)";
        match self.rest.first() {
            Some(byte) if !may_follow.contains(byte) => {
                let found = char::from(*byte).escape_default();
                let what = format!("expected a blank, ; or {{ behind the closing quote, found {found}");
                Err(Unreadable { line: self.line, what })
            }
            _ => self.word(line, word),
        }
    }

    /// Steps over a block in another language, up to its closing brace. `{` has been read.
    pub(super) fn skip_foreign(&mut self) -> Result<(), Unreadable> {
        let line = self.line;
        let mut depth = 1_usize;
        while let Some(&byte) = self.rest.first() {
            self.advance();
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b'\n' => {}
                // Strings and comments of Lua, in which braces mean nothing.
                b'"' | b'\'' => self.skip_to(&[byte, b'\n']),
                b'-' if self.rest.first() == Some(&b'-') => self.skip_to(b"\n"),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(Unreadable { line, what: "the block that begins here has no end".to_owned() })
    }

    /// Behind the first of these bytes that no backslash stands in front of.
    fn skip_to(&mut self, ends: &[u8]) {
        while let Some(&byte) = self.rest.first() {
            self.advance();
            match byte {
                b'\\' => self.advance(),
                byte if ends.contains(&byte) => return,
                _ => {}
            }
        }
    }

    fn word(&self, line: usize, bytes: &[u8]) -> Result<(usize, Token), Unreadable> {
        let wrong = |what: &str| Err(Unreadable { line, what: what.to_owned() });
        if bytes.len() >= WORD_LEN_MAX {
            return wrong(
                "a word of 4096 bytes or more, which nginx doesn't take: is a quote or a ; missing?",
            );
        }
        if bytes.contains(&0) {
            return wrong("a NUL byte: this is no text");
        }
        let Ok(text) = str::from_utf8(bytes) else {
            return wrong("this is not UTF-8, which names and paths have to be here");
        };
        Ok((line, Token::Word(unescaped(text))))
    }

    fn advance(&mut self) {
        if let Some((first, rest)) = self.rest.split_first() {
            self.line += usize::from(*first == b'\n');
            self.rest = rest;
        }
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(c @ ('"' | '\'' | '\\')) => out.push(c),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('n') => out.push('\n'),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(usize, Token)>, Unreadable> {
        let mut lexer = Lexer::new(bytes);
        let mut tokens = Vec::new();
        loop {
            match lexer.token()? {
                (_, Token::End) => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    #[track_caller]
    fn words(text: &str, expect: &[&str]) {
        let shown = all(text.as_bytes()).unwrap().into_iter().map(|(_, token)| match token {
            Token::Word(word) => word,
            Token::Semicolon => ";".to_owned(),
            Token::Open => "{".to_owned(),
            Token::Close => "}".to_owned(),
            Token::End => unreachable!(),
        });
        assert_eq!(shown.collect::<Vec<_>>(), expect, "{text}");
    }

    /// What `nginx -t` says to each of these was asked of nginx itself.
    #[test]
    fn words_are_those_of_nginx() {
        words("a b;", &["a", "b", ";"]);
        words("a{b;}", &["a", "{", "b", ";", "}"]);
        words(
            "return 301 https://${host}$request_uri;",
            &["return", "301", "https://${host}$request_uri", ";"],
        );
        words("a b#c; # d;\ne;", &["a", "b#c", ";", "e", ";"]);
        words("a 'b c' \"d;{}\" ;", &["a", "b c", "d;{}", ";"]);
        words("a it's;", &["a", "it's", ";"]);
        words(r#"a "b\"c" 'd\'e' f\;g h\ i;"#, &["a", "b\"c", "d'e", r"f\;g", r"h\ i", ";"]);
        words(r"~ \.php$ {", &["~", r"\.php$", "{"]);
        words(r"a b\\c \t;", &["a", r"b\c", "\t", ";"]);
        words(
            "if (\"$a\" = 'b') {",
            &["if", "($a\"", "=", "b", ")", "{"].map(|w| if w == "($a\"" { "(\"$a\"" } else { w }),
        );
        words("a \"b${c}d\" e$f{", &["a", "b${c}d", "e$f", "{"]);
        words("a b}c;", &["a", "b}c", ";"]);
        words("a\r\n\tb ;\r\n", &["a", "b", ";"]);
        words("a '' \"\";", &["a", "", "", ";"]);
    }

    #[test]
    fn lines_are_those_of_the_beginning() {
        let tokens = all(b"a\n 'b\nc' d\n;").unwrap();
        assert_eq!(tokens.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn what_nginx_refuses_is_refused() {
        for (bytes, line, says) in [
            (&b"\na 'b;\n\n"[..], 2, "the ' that begins here has no end"),
            (b"a 'b'c;", 1, "expected a blank, ; or { behind the closing quote, found c"),
            (b"a\nb\0c;", 2, "a NUL byte"),
            (b"a \xff;", 1, "not UTF-8"),
            (b"\xef\xbb\xbfuser x;", 1, "byte order mark"),
        ] {
            let error = all(bytes).unwrap_err();
            assert!(error.line == line && error.what.contains(says), "{error:?}");
        }
        assert!(all(&[b'a'; 5000]).unwrap_err().what.contains("4096"));
    }

    #[test]
    fn blocks_of_lua_are_stepped_over() {
        let mut lexer = Lexer::new(b"{ if a then b = \"}\" end -- }\n t = {1, {2}} }\nc;");
        assert_eq!(lexer.token().unwrap().1, Token::Open);
        lexer.skip_foreign().unwrap();
        assert_eq!(lexer.token().unwrap(), (3, Token::Word("c".to_owned())));
        assert!(Lexer::new(b"{ {").skip_foreign().is_err());
    }

    /// A word as nginx needs it, if it is to be read as `text`.
    fn written(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes: Vec<u8>) {
            let _ = all(&bytes);
        }

        #[test]
        fn near_files_are_read_to_an_end(text in "[ab ${}\\\\;#\n\r\"'()]{0,60}") {
            let mut lexer = Lexer::new(text.as_bytes());
            let lines = text.matches('\n').count() + 1;
            let mut last = 1;
            while let Ok((line, token)) = lexer.token() {
                prop_assert!(last <= line && line <= lines);
                last = line;
                if token == Token::End {
                    break;
                }
            }
        }

        #[test]
        fn words_and_lines_come_back(words in proptest::collection::vec(("[^\0]{0,20}", 0..3_usize), 0..10)) {
            let (mut text, mut line, mut expect) = (String::new(), 1, Vec::new());
            for (word, breaks) in words {
                text.push_str(&"\n".repeat(breaks));
                text.push(' ');
                line += breaks;
                expect.push((line, Token::Word(word.clone())));
                line += word.matches('\n').count();
                text.push_str(&written(&word));
            }
            prop_assert_eq!(all(text.as_bytes()).unwrap(), expect);
        }
    }
}
