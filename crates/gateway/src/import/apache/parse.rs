//! Directives of Apache, with what their `Include`s bring in their place. Nothing is read here but through [`Sources`].
//!
//! A directive is a line, which a backslash at its end continues; a section stands between `<Name …>` and `</Name>`. Names
//! have no case. `${NAME}` is what `Define` has said, in whatever line it stands. What stands in an `<IfModule>` or its like
//! that holds stands behind it here; what stands in one that doesn't stays in it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::conditions::{Conditions, Verdict};
use crate::import::sources::{ReadError, Sources};
use crate::import::tree::{At, DEPTH_MAX, Directive, SyntaxError};

/// So many files may include each other in a row.
const FILES_DEEP_MAX: usize = 16;
/// All lines with variables have at most so many bytes, once the values are put in.
const EXPANDED_BYTES_MAX: usize = 64 << 20;
/// The longest line that Apache takes.
const LINE_LEN_MAX: usize = 16 << 20;

/// A file and all that it includes.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub directives: Vec<Directive>,
    /// How many there are.
    pub count: usize,
    /// The numbers of those `Include`s whose files aren't there, and why.
    pub unread: Vec<(usize, String)>,
    /// The numbers of the conditions, and what was found.
    pub verdicts: Vec<(usize, Verdict)>,
    /// Names of `${NAME}` that nothing defines, and the first place of each.
    pub undefined: Vec<(At, String)>,
}

/// Reads `file`. Relative names of files begin at `root` until a `ServerRoot` says otherwise.
///
/// # Errors
/// What Apache wouldn't read either, and more files than there may be.
pub(super) fn parse(sources: &mut dyn Sources, file: &Path, root: &Path) -> Result<Parsed, SyntaxError> {
    let mut parser = Parser {
        sources,
        first: root,
        root: root.to_owned(),
        open: Vec::new(),
        conditions: Conditions::default(),
        expanded_left: EXPANDED_BYTES_MAX,
        undefined: HashSet::new(),
        parsed: Parsed::default(),
    };
    let at = At { file: file.display().to_string().into(), line: 1 };
    let read = parser.sources.read(file);
    let bytes = read.map_err(|error| SyntaxError { at, what: error.to_string() })?;
    parser.variables();
    let directives = parser.file(file, &bytes, 0, true)?;
    Ok(Parsed { directives, ..parser.parsed })
}

struct Parser<'a> {
    sources: &'a mut dyn Sources,
    /// The directory of the first file, which comments leave out.
    first: &'a Path,
    root: PathBuf,
    /// The files that are being read, each included by the one in front of it.
    open: Vec<PathBuf>,
    conditions: Conditions,
    /// So many bytes of lines with variables may come.
    expanded_left: usize,
    /// The names of `parsed.undefined`.
    undefined: HashSet<String>,
    parsed: Parsed,
}

/// A section whose end has not come.
struct Open {
    section: Directive,
    /// What stands in front of it.
    before: Vec<Directive>,
    /// What stands around it is read.
    is_read: bool,
    /// It is a condition that holds.
    holds: bool,
}

impl Parser<'_> {
    /// The variables that Debian's `envvars` has beside the file or its directory; its `SUFFIX` is empty for the instance in /etc/apache2.
    fn variables(&mut self) {
        let mut near = [Some(self.first), self.first.parent()].into_iter().flatten();
        let Some(bytes) = near.find_map(|directory| self.sources.read(&directory.join("envvars")).ok())
        else {
            return;
        };
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Some((name, value)) = line.strip_prefix("export ").and_then(|line| line.split_once('='))
            else {
                continue;
            };
            let value = value.replace("$SUFFIX", "");
            if !value.contains(['$', '`', '"', '\'', ' ']) {
                self.conditions.define(name, value);
            }
        }
    }

    /// All directives of a file, which stands `depth` sections deep. `is_read`: Apache reads what stands there.
    fn file(
        &mut self,
        file: &Path,
        bytes: &[u8],
        depth: usize,
        is_read: bool,
    ) -> Result<Vec<Directive>, SyntaxError> {
        let below = file.strip_prefix(self.first).unwrap_or(file);
        let shown: Arc<str> = below.display().to_string().replace(char::is_control, "?").into();
        let at = |line| At { file: shown.clone(), line };
        let wrong = |line, what: String| SyntaxError { at: at(line), what };
        self.open.push(file.to_owned());
        let mut is_read = is_read;
        let mut sections: Vec<Open> = Vec::new();
        let mut directives = Vec::new();
        for (number, line) in (Lines { rest: bytes, line: 0 }) {
            let line = line.map_err(|what| wrong(number, what.to_owned()))?;
            let line =
                self.expanded(line.trim(), &at(number), is_read).map_err(|what| wrong(number, what))?;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix("</") {
                let name = name.trim_end_matches('>').trim().to_ascii_lowercase();
                let Some(open) = sections.pop() else {
                    return Err(wrong(number, format!("</{name}> for which there is no <{name}>")));
                };
                let Open { section, before, holds, .. } = open;
                if section.name != name {
                    let what = format!("</{name}> where </{}> is expected ({})", section.name, section.at);
                    return Err(wrong(number, what));
                }
                is_read = open.is_read;
                let inside = std::mem::replace(&mut directives, before);
                if holds {
                    directives.push(section);
                    directives.extend(inside);
                } else {
                    directives.push(Directive { block: Some(inside), ..section });
                }
                continue;
            }
            let text = match line.strip_prefix('<') {
                Some(text) => text
                    .strip_suffix('>')
                    .ok_or_else(|| wrong(number, format!("the > of {line:?} is missing")))?,
                None => &line,
            };
            let mut words = words(text).map_err(|what| wrong(number, what.to_owned()))?;
            if words.is_empty() {
                return Err(wrong(number, "a section without a name".to_owned()));
            }
            let name = words.remove(0).to_ascii_lowercase();
            let id = self.parsed.count;
            self.parsed.count += 1;
            let directive = Directive { id, name, args: words, at: at(number), block: None };
            if line.starts_with('<') {
                if depth + sections.len() == DEPTH_MAX {
                    return Err(wrong(number, format!("more than {DEPTH_MAX} sections stand in each other")));
                }
                let verdict = self.conditions.verdict(&directive).filter(|_| is_read);
                let holds = verdict.as_ref().is_some_and(|verdict| verdict.holds);
                let before = std::mem::take(&mut directives);
                sections.push(Open { section: directive, before, is_read, holds });
                if let Some(verdict) = verdict {
                    is_read = holds;
                    self.parsed.verdicts.push((id, verdict));
                }
                continue;
            }
            let included = match directive.name.as_str() {
                _ if !is_read => Vec::new(),
                "include" | "includeoptional" => self.included(&directive, depth + sections.len())?,
                "serverroot" => {
                    self.root = self.root.join(directive.arg(0));
                    Vec::new()
                }
                _ => {
                    self.conditions.note(&directive);
                    Vec::new()
                }
            };
            directives.push(directive);
            directives.extend(included);
        }
        if let Some(Open { section, .. }) = sections.pop() {
            let what = format!("the </{}> of this section is missing", section.name);
            return Err(SyntaxError { at: section.at, what });
        }
        self.open.pop();
        Ok(directives)
    }

    /// Puts in what is defined.
    fn expanded(&mut self, line: &str, at: &At, is_read: bool) -> Result<String, String> {
        if line.starts_with('#') {
            return Ok(String::new());
        }
        if !line.contains("${") {
            return Ok(line.to_owned());
        }
        let (line, unknown) = self.conditions.expanded(line)?;
        self.expanded_left = self.expanded_left.checked_sub(line.len()).ok_or_else(|| {
            format!("all lines with variables have more than {} MiB up to here", EXPANDED_BYTES_MAX >> 20)
        })?;
        for name in unknown.into_iter().filter(|_| is_read) {
            if self.undefined.insert(name.clone()) {
                self.parsed.undefined.push((at.clone(), name));
            }
        }
        Ok(line)
    }

    /// What an `Include` brings.
    fn included(&mut self, include: &Directive, depth: usize) -> Result<Vec<Directive>, SyntaxError> {
        let wrong = |what: String| SyntaxError { at: include.at.clone(), what };
        let pattern = self.root.join(include.arg(0));
        let mut files = self.sources.matching(&pattern).map_err(wrong)?;
        // A directory stands for the files in it.
        let inside = self.sources.matching(&pattern.join("*")).map_err(wrong)?;
        if !inside.is_empty() && files.len() <= 1 {
            files = inside;
        }
        let mut directives = Vec::new();
        for file in &files {
            if self.open.len() == FILES_DEEP_MAX {
                return Err(wrong(format!("more than {FILES_DEEP_MAX} files include each other in a row")));
            }
            if self.open.contains(file) {
                return Err(wrong(format!("{} includes itself", file.display())));
            }
            match self.sources.read(file) {
                Ok(bytes) => directives.extend(self.file(file, &bytes, depth, true)?),
                Err(ReadError::Missing(what)) => self.parsed.unread.push((include.id, what)),
                Err(error @ ReadError::TooMuch(_)) => {
                    return Err(wrong(format!("{}: {error}", file.display())));
                }
            }
        }
        Ok(directives)
    }
}

/// Lines, those that are continued as one, each with the number of its first.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
}

impl Iterator for Lines<'_> {
    type Item = (usize, Result<String, &'static str>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let first = self.line + 1;
        let mut whole: Vec<u8> = Vec::new();
        loop {
            let len = self.rest.iter().position(|byte| *byte == b'\n').unwrap_or(self.rest.len());
            let (line, behind) = self.rest.split_at(len);
            self.rest = behind.get(1..).unwrap_or_default();
            self.line += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line.strip_suffix(b"\\") {
                Some(begun) if !self.rest.is_empty() => whole.extend_from_slice(begun),
                _ => {
                    whole.extend_from_slice(line);
                    break;
                }
            }
        }
        // A comment may have any bytes.
        if whole.trim_ascii_start().starts_with(b"#") {
            return Some((first, Ok(String::new())));
        }
        if whole.len() > LINE_LEN_MAX {
            return Some((first, Err("a line of more than 16 MiB")));
        }
        if whole.contains(&0) {
            return Some((first, Err("a NUL byte: this is no text")));
        }
        if whole.starts_with(b"\xef\xbb\xbf") {
            return Some((
                first,
                Err("a byte order mark (U+FEFF), which Apache takes for a part of the name; remove it"),
            ));
        }
        Some((
            first,
            String::from_utf8(whole).map_err(|_| "this is not UTF-8, which names and paths have to be here"),
        ))
    }
}

/// The words of a line. A backslash keeps a quote within its like, and itself, from meaning anything; in rules of mod_rewrite
/// it stays, and keeps a blank in its word.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let is_rule = text.get(..7).is_some_and(|front| front.eq_ignore_ascii_case("rewrite"));
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let quote = Some(first).filter(|c| matches!(c, '"' | '\''));
        let mut word = String::new();
        let mut chars = rest.char_indices().skip(usize::from(quote.is_some())).peekable();
        let mut end = quote.is_none().then_some(rest.len());
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            if c == '\\' && next.is_some_and(|next| is_rule || next == '\\' || Some(next) == quote) {
                word.extend(is_rule.then_some(c));
                word.extend(next);
                chars.next();
            } else if quote.map_or(c.is_whitespace(), |quote| c == quote) {
                end = Some(at + usize::from(quote.is_some()));
                break;
            } else {
                word.push(c);
            }
        }
        words.push(word);
        rest = rest[end.ok_or("a quote that begins here has no end")?..].trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::import::sources::Memory;
    use crate::import::tree::count;

    fn parse_all(files: &[(&str, &str)]) -> Result<Parsed, String> {
        let mut memory = Memory::of(files);
        let read = parse(&mut memory, Path::new("/etc/apache2/apache2.conf"), Path::new("/etc/apache2"));
        read.map_err(|e| e.to_string())
    }

    fn parse_one(text: &str) -> Result<Parsed, String> {
        parse_all(&[("/etc/apache2/apache2.conf", text)])
    }

    fn shown(directives: &[Directive]) -> Vec<String> {
        directives.iter().map(|d| format!("{} {}", d.at.line, d.shown())).collect()
    }

    #[test]
    fn lines_and_sections_become_a_tree() {
        let parsed = parse_one(
            "Define HOST a.test\nServerName \\\r\n  ${HOST}\n<VirtualHost *:80>\n  # comment \\xff\n  Header set X \"a \\\"b\\\" \\d\"\n\
             </VirtualHost>\nListen ${NONE}\n",
        )
        .unwrap();
        assert_eq!(
            shown(&parsed.directives),
            ["1 define HOST a.test", "2 servername a.test", "4 virtualhost *:80", "8 listen ${NONE}"]
        );
        assert_eq!(parsed.directives[2].inside()[0].args, ["set", "X", "a \"b\" \\d"]);
        assert_eq!(parsed.count, count(&parsed.directives));
    }

    #[test]
    fn included_files_stand_behind_their_line() {
        let parsed = parse_all(&[
            (
                "/etc/apache2/apache2.conf",
                "ServerRoot /etc/apache2\nIncludeOptional sites/*.conf\nInclude none.conf",
            ),
            (
                "/etc/apache2/sites/a.conf",
                "<IfModule a>\nListen 80\n</IfModule>\n<IfModule !a>\nInclude apache2.conf\n</IfModule>",
            ),
        ])
        .unwrap();
        let names: Vec<_> = parsed.directives.iter().map(|d| format!("{} {}", d.at, d.name)).collect();
        assert_eq!(
            names,
            [
                "apache2.conf:1 serverroot",
                "apache2.conf:2 includeoptional",
                "sites/a.conf:1 ifmodule",
                "sites/a.conf:2 listen",
                "sites/a.conf:4 ifmodule",
                "apache2.conf:3 include",
            ]
        );
        assert_eq!(parsed.unread.len(), 1);
        assert_eq!(parsed.count, count(&parsed.directives));
    }

    #[test]
    fn variables_come_from_defines_and_envvars() {
        let parsed = parse_all(&[
            ("/etc/apache2/apache2.conf", "ErrorLog ${LOG}/x\n# ${NONE}\nListen ${NONE}\nListen ${NONE}"),
            ("/etc/apache2/envvars", "unset HOME\nexport LOG=/var/log$SUFFIX\nexport NONE=`id`"),
        ])
        .unwrap();
        assert_eq!(parsed.directives[0].args, ["/var/log/x"]);
        let undefined: Vec<_> = parsed.undefined.iter().map(|(at, name)| format!("{at} {name}")).collect();
        assert_eq!(undefined, ["apache2.conf:3 NONE"]);
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, says) in [
            ("\n<A>\n", "apache2.conf:2: the </a> of this section is missing"),
            ("<A>\n<B>\n</A>", "apache2.conf:3: </a> where </b> is expected (apache2.conf:2)"),
            ("</A>", "apache2.conf:1: </a> for which there is no <a>"),
            ("<A", "apache2.conf:1: the > of \"<A\" is missing"),
            ("<>", "a section without a name"),
            ("a \"b", "apache2.conf:1: a quote that begins here has no end"),
            ("a\n\0", "apache2.conf:2: a NUL byte"),
            ("Include apache2.conf", "includes itself"),
            (&"<a>\n".repeat(1000), "more than 32 sections stand in each other"),
        ] {
            let error = parse_one(text).unwrap_err();
            assert!(error.contains(says), "{error} lacks {says}");
        }
    }

    #[test]
    fn variables_do_not_grow_without_a_bound() {
        let mut text = "Define X0 xxxxxxxxxx\n".to_owned();
        for n in 1..40 {
            text += &format!("Define X{n} ${{X{}}}${{X{}}}\n", n - 1, n - 1);
        }
        let error = parse_one(&text).unwrap_err();
        assert!(error.contains("apache2.conf:14: more than 64 KiB"), "{error}");
        let many = format!("Define A {}\n{}", "x".repeat(60_000), "a ${A}\n".repeat(1_200));
        let error = parse_one(&many).unwrap_err();
        assert!(error.contains("all lines with variables have more than 64 MiB"), "{error}");
        // What has no variable may be longer.
        assert!(parse_one(&format!("a {}", "x".repeat(100_000))).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_breaks(text in "(<a>|</a>|a|b \\\\|\"|'| |\n|\\$\\{|\\}|Include x|Define A b|\r|\u{e9}){0,40}") {
            if let Ok(parsed) = parse_one(&text) {
                prop_assert_eq!(parsed.count, count(&parsed.directives));
            }
        }

        #[test]
        fn rules_keep_their_backslashes(word in "[a^$.(]{0,5}(\\\\[ ./d]){0,3}[a-z]{1,3}") {
            prop_assert_eq!(words(&format!("RewriteRule {word} \"{word}\"")).unwrap()[1..].to_vec(), [word.clone(), word]);
        }

        #[test]
        fn words_come_back(all in proptest::collection::vec("[^\0]{0,10}", 0..5)) {
            let written: Vec<String> =
                all.iter().map(|word| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))).collect();
            prop_assert_eq!(words(&written.join(" ")).unwrap(), all);
        }
    }
}
