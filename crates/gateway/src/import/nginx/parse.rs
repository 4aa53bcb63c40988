//! Directives of nginx, with what their `include`s bring in their place. Nothing is read here but through [`Sources`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lexer::{Lexer, Token, Unreadable};
use crate::import::sources::{ReadError, Sources};
use crate::import::tree::{At, DEPTH_MAX, Directive, SyntaxError};

/// A file and all that it includes.
#[derive(Debug)]
pub(super) struct Parsed {
    pub directives: Vec<Directive>,
    /// How many there are.
    pub count: usize,
    /// The numbers of those `include`s whose file isn't there, and why.
    pub unread: Vec<(usize, String)>,
}

/// Reads `file`. Names in `include` are relative to `prefix`, the directory of the first file.
///
/// # Errors
/// What nginx wouldn't read either, and more files than there may be. A file that is included by its name and isn't there
/// is none: it is in the list.
pub(super) fn parse(sources: &mut dyn Sources, file: &Path, prefix: &Path) -> Result<Parsed, SyntaxError> {
    let mut parser = Parser { sources, prefix, open: Vec::new(), count: 0, unread: Vec::new() };
    let none = At { file: file.display().to_string().into(), line: 1 };
    let read = parser.sources.read(file);
    let bytes = read.map_err(|error| SyntaxError { at: none, what: error.to_string() })?;
    let directives = parser.file(file, &bytes, 0)?;
    Ok(Parsed { directives, count: parser.count, unread: parser.unread })
}

/// So many files may include each other in a row.
const FILES_DEEP_MAX: usize = 16;

struct Parser<'a> {
    sources: &'a mut dyn Sources,
    prefix: &'a Path,
    /// The files that are being read, each included by the one in front of it.
    open: Vec<PathBuf>,
    count: usize,
    unread: Vec<(usize, String)>,
}

impl Parser<'_> {
    /// All directives of a file, which stands `depth` blocks deep.
    fn file(&mut self, file: &Path, bytes: &[u8], depth: usize) -> Result<Vec<Directive>, SyntaxError> {
        let below = file.strip_prefix(self.prefix).unwrap_or(file);
        let shown: Arc<str> = below.display().to_string().replace(char::is_control, "?").into();
        let at = |line| At { file: shown.clone(), line };
        let unreadable = |Unreadable { line, what }| SyntaxError { at: at(line), what };
        let wrong = |line, what: &str| SyntaxError { at: at(line), what: what.to_owned() };
        self.open.push(file.to_owned());
        let mut lexer = Lexer::new(bytes);
        // The blocks that are open, and the directives in front of them.
        let mut blocks: Vec<(Directive, Vec<Directive>)> = Vec::new();
        let mut directives = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut begins = 1;
        loop {
            let (line, token) = lexer.token().map_err(unreadable)?;
            let is_first = words.is_empty();
            match token {
                Token::Word(word) => {
                    begins = if is_first { line } else { begins };
                    words.push(word);
                }
                Token::Semicolon | Token::Open if is_first => {
                    let sign = if token == Token::Open { "{" } else { ";" };
                    return Err(wrong(line, &format!("a {sign} with no directive in front of it")));
                }
                Token::Semicolon => {
                    let directive = self.directive(std::mem::take(&mut words), at(begins));
                    if directive.name == "include" && directive.args.len() == 1 {
                        let included = self.included(&directive, depth + blocks.len())?;
                        directives.push(directive);
                        directives.extend(included);
                    } else {
                        directives.push(directive);
                    }
                }
                Token::Open => {
                    let directive = self.directive(std::mem::take(&mut words), at(begins));
                    if depth + blocks.len() == DEPTH_MAX {
                        return Err(wrong(
                            line,
                            &format!("more than {DEPTH_MAX} blocks stand in each other"),
                        ));
                    }
                    if directive.name.ends_with("_by_lua_block") {
                        lexer.skip_foreign().map_err(unreadable)?;
                        directives.push(Directive { block: Some(Vec::new()), ..directive });
                    } else {
                        blocks.push((directive, std::mem::take(&mut directives)));
                    }
                }
                Token::Close if !is_first => {
                    return Err(wrong(begins, &format!("the ; behind {:?} is missing", words.join(" "))));
                }
                Token::Close => {
                    let Some((block, before)) = blocks.pop() else {
                        return Err(wrong(line, "a } for which there is no {"));
                    };
                    let inside = std::mem::replace(&mut directives, before);
                    directives.push(Directive { block: Some(inside), ..block });
                }
                Token::End => {
                    if !is_first {
                        return Err(wrong(begins, &format!("the ; behind {:?} is missing", words.join(" "))));
                    }
                    if let Some((block, _)) = blocks.pop() {
                        let what = format!("the }} of the block {:?} is missing", block.shown());
                        return Err(SyntaxError { at: block.at, what });
                    }
                    self.open.pop();
                    return Ok(directives);
                }
            }
        }
    }

    fn directive(&mut self, mut words: Vec<String>, at: At) -> Directive {
        let id = self.count;
        self.count += 1;
        let name = words.remove(0);
        Directive { id, name, args: words, at, block: None }
    }

    /// What an `include` brings.
    fn included(&mut self, include: &Directive, depth: usize) -> Result<Vec<Directive>, SyntaxError> {
        let wrong = |what: String| SyntaxError { at: include.at.clone(), what };
        let pattern = self.prefix.join(include.arg(0));
        let files = self.sources.matching(&pattern).map_err(wrong)?;
        let mut directives = Vec::new();
        for file in &files {
            if self.open.len() == FILES_DEEP_MAX {
                return Err(wrong(format!("more than {FILES_DEEP_MAX} files include each other in a row")));
            }
            if self.open.contains(file) {
                return Err(wrong(format!("{} includes itself", file.display())));
            }
            match self.sources.read(file) {
                Ok(bytes) => directives.extend(self.file(file, &bytes, depth)?),
                Err(ReadError::Missing(what)) => self.unread.push((include.id, what)),
                Err(error @ ReadError::TooMuch(_)) => {
                    return Err(wrong(format!("{}: {error}", file.display())));
                }
            }
        }
        Ok(directives)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::import::sources::Memory;

    fn parse_all(files: &[(&str, &str)]) -> Result<Parsed, String> {
        let mut memory = Memory::of(files);
        parse(&mut memory, Path::new("/etc/nginx/nginx.conf"), Path::new("/etc/nginx"))
            .map_err(|e| e.to_string())
    }

    fn parse_one(text: &str) -> Result<Parsed, String> {
        parse_all(&[("/etc/nginx/nginx.conf", text)])
    }

    #[test]
    fn blocks_and_included_files_become_a_tree() {
        let parsed = parse_all(&[
            ("/etc/nginx/nginx.conf", "user a;\nhttp {\n  include sites/*.conf;\n  gzip on; }\n"),
            ("/etc/nginx/sites/b.conf", "server { listen 81; }"),
            ("/etc/nginx/sites/a.conf", "server {\nlisten 80; }"),
        ])
        .unwrap();
        let http = &parsed.directives[1];
        let names: Vec<_> = http.inside().iter().map(|d| (d.name.as_str(), d.at.to_string())).collect();
        assert_eq!(
            names,
            [
                ("include", "nginx.conf:3".to_owned()),
                ("server", "sites/a.conf:1".to_owned()),
                ("server", "sites/b.conf:1".to_owned()),
                ("gzip", "nginx.conf:4".to_owned()),
            ]
        );
        assert_eq!(http.inside()[1].inside()[0].at.to_string(), "sites/a.conf:2");
        assert_eq!(parsed.count, crate::import::tree::count(&parsed.directives));
    }

    #[test]
    fn an_include_of_what_is_not_there_is_listed() {
        let parsed = parse_one("a;\ninclude mime.types;\ninclude sites/*;\nb;").unwrap();
        let names: Vec<_> = parsed.directives.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["a", "include", "include", "b"]);
        assert_eq!((parsed.count, parsed.unread), (4, vec![(1, "there is no such file".to_owned())]));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, says) in [
            ("a", "nginx.conf:1: the ; behind \"a\" is missing"),
            ("\na b\n}", "nginx.conf:2: the ; behind \"a b\" is missing"),
            ("a {\nb;", "nginx.conf:1: the } of the block \"a\" is missing"),
            ("a;\n}", "nginx.conf:2: a } for which there is no {"),
            ("\n;", "nginx.conf:2: a ; with no directive in front of it"),
            ("a; {", "nginx.conf:1: a { with no directive in front of it"),
            ("a '", "nginx.conf:1: the ' that begins here has no end"),
            ("\ninclude nginx.conf;", "nginx.conf:2: /etc/nginx/nginx.conf includes itself"),
        ] {
            let error = parse_one(text).unwrap_err();
            assert!(error.contains(says), "{error} lacks {says}");
        }
        let deep = parse_one(&"a {".repeat(100_000)).unwrap_err();
        assert!(deep.contains("more than 32 blocks stand in each other"), "{deep}");
    }

    #[test]
    fn circles_of_files_are_found() {
        let error = parse_all(&[
            ("/etc/nginx/nginx.conf", "include a;"),
            ("/etc/nginx/a", "x;\ninclude b;"),
            ("/etc/nginx/b", "include a;"),
        ]);
        assert_eq!(error.unwrap_err(), "b:1: /etc/nginx/a includes itself");
    }

    proptest! {
        #[test]
        fn nothing_breaks(text in "(a|b;|\\{|\\}|'|\"| |\n|include nginx.conf;|include x;|include \\*;){0,40}") {
            if let Ok(parsed) = parse_one(&text) {
                prop_assert_eq!(parsed.count, crate::import::tree::count(&parsed.directives));
            }
        }
    }
}
