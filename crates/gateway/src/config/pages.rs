//! `error_pages`: pages by status, read when the configuration is.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use super::document::{Document, describe};
use super::file;
use super::kind::{Kind, noted};
use super::spec::Shape;
use crate::site::extras::Page;
use crate::site::files::media_type;

/// Pages are kept in memory.
const PAGE_LEN_MAX: u64 = 1 << 20;

/// Files by status.
pub(super) struct PageFiles;

impl Kind for PageFiles {
    type Value = BTreeMap<u16, Page>;

    fn shape() -> Shape {
        let schema = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        Shape::Value { words: "files by status, `{ 404 = \"www/404.html\" }`".to_owned(), schema }
    }

    fn read(
        document: &mut Document<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<BTreeMap<u16, Page>> {
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("expected {{ 404 = \"www/404.html\" }}, found {}", describe(value.get_ref()));
            return noted(document, key, value, Err(what));
        };
        let mut pages = BTreeMap::new();
        for (status, file) in table {
            let status = status.get_ref();
            let page = page(status, file.get_ref(), document.base(file));
            if let Some((status, page)) = noted(document, &format!("{key}: {status}"), file, page) {
                pages.insert(status, page);
            }
        }
        Some(pages)
    }
}

fn page(status: &str, name: &DeValue<'_>, base: &Path) -> Result<(u16, Page), String> {
    let status: u16 = status
        .parse()
        .ok()
        .filter(|status| (400..=599).contains(status))
        .ok_or_else(|| "expected a status from 400 to 599".to_owned())?;
    let DeValue::String(name) = name else {
        return Err(format!("expected the name of a file in quotes, found {}", describe(name)));
    };
    let path = base.join(name.as_ref());
    let content = file::read(&path, PAGE_LEN_MAX);
    let content = content.map_err(|e| format!("{} can't be read: {e}", path.display()))?;
    let body = content.bytes.ok_or_else(|| format!("{} is longer than 1 MiB", path.display()))?;
    Ok((status, Page { body: body.into(), content_type: media_type(path.as_os_str()) }))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn pages_that_can_be_read_and_others() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join("good.html"), "<p>good").unwrap();
        std::fs::write(directory.path().join("large.html"), vec![b' '; (1 << 20) + 1]).unwrap();
        std::fs::write(directory.path().join("largest.json"), vec![b' '; 1 << 20]).unwrap();
        let read = |pages: &str| {
            let text = format!(
                "[[listener]]\naddress = \"127.0.0.1:1\"\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n{pages}\n"
            );
            Config::parse(&directory.path().join("wssgate.toml"), &text)
        };
        let (config, problems) = read("error_pages = { 404 = \"good.html\", 502 = \"largest.json\" }");
        assert_eq!(problems, []);
        let pages = &config.routes[0].extras.as_ref().unwrap().pages.as_ref().unwrap().pages;
        assert_eq!(
            (&*pages[&404].body, &pages[&404].content_type),
            (&b"<p>good"[..], &"text/html; charset=utf-8".parse().unwrap())
        );
        assert_eq!(
            (pages[&502].body.len(), pages[&502].content_type.to_str().unwrap()),
            (1 << 20, "application/json")
        );
        for (pages, says) in [
            ("error_pages = { 404 = \"none.html\" }", ":7:23: error_pages: 404: "),
            ("error_pages = { 404 = \"none.html\" }", "none.html can't be read: No such file"),
            ("error_pages = { 404 = \"large.html\" }", "large.html is longer than 1 MiB"),
            ("error_pages = { 404 = \".\" }", "can't be read: it is no file"),
            ("error_pages = { 200 = \"good.html\" }", "200: expected a status from 400 to 599"),
            ("error_pages = { 404 = 5 }", "expected the name of a file in quotes, found the number 5"),
            ("error_pages = \"good.html\"", "error_pages: expected { 404 = \"www/404.html\" }"),
            ("intercept_errors = true", "intercept_errors: without error_pages it has no meaning"),
        ] {
            let (_, problems) = read(pages);
            assert!(problems.len() == 1 && problems[0].to_string().contains(says), "{pages}: {problems:?}");
        }
    }
}
