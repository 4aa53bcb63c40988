//! Files of a directory (RFC 9110 §9.3.1, §13, §14).
//!
//! In: a request below the route's path. Out: the file of that name, its parts, or that the client has it already.
//! Refused: whatever [`name`] and [`open`] don't let through, with 404.

mod conditions;
mod listing;
mod name;
mod ranges;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, LAST_MODIFIED, LOCATION, RANGE, VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use rustix::io::Errno;

use self::conditions::{Validators, Verdict};
use self::ranges::{Multipart, Selection};
use crate::request::body::AnswerBody;
use crate::request::coding::{self, Coding};
use crate::request::file::body::{FileBody, Part};
use crate::request::file::kept;
use crate::request::file::open::{self, CHUNK_LEN, Found};
use crate::request::file::opened::File;
use crate::request::reply::{ErrorResponse, Served};
use crate::site::answer::{Requested, local};
use crate::site::files::{Files, is_source, media_type};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Answers with a file.
///
/// # Errors
/// 404, 405, 412 or 416, or what is wrong with the disk.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn answer(
    files: &Arc<Files>,
    head: &Parts,
    requested: &Requested<'_>,
) -> Result<Served, ErrorResponse> {
    check_method(head)?;
    serve(files, head, requested, find(files, requested).await?).await
}

/// What a request is for.
#[derive(Debug)]
pub(crate) enum Target {
    /// A file, and its name in the directory.
    File(OsString, File),
    /// A directory that was named without a slash.
    NoSlash,
    /// A directory that is listed.
    Listed(OwnedFd),
}

/// Finds what a request is for.
///
/// # Errors
/// 404, or what is wrong with the disk.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn find(files: &Arc<Files>, requested: &Requested<'_>) -> Result<Target, ErrorResponse> {
    let name = name::parse(requested.file()).ok_or_else(nothing)?;
    if !name.is_directory {
        match open::open(files, &name.path).await {
            Ok(Found::File(file)) => return Ok(Target::File(name.path, file)),
            Ok(Found::Directory(_)) => return Ok(Target::NoSlash),
            Err(e) => missing(e)?,
        }
    } else {
        for index in &files.index {
            let index = in_directory(&name.path, index);
            match open::open(files, &index).await {
                Ok(Found::File(file)) => return Ok(Target::File(index, file)),
                Ok(Found::Directory(_)) => {}
                Err(e) => missing(e)?,
            }
        }
        if files.listing {
            match open::open(files, &name.path).await {
                Ok(Found::Directory(directory)) => return Ok(Target::Listed(directory)),
                Ok(Found::File(_)) => {}
                Err(e) => missing(e)?,
            }
        }
    }
    if let Some(fallback) = &files.fallback {
        let fallback = OsString::from(&**fallback);
        match open::open(files, &fallback).await {
            Ok(Found::File(file)) => return Ok(Target::File(fallback, file)),
            Ok(Found::Directory(_)) => {}
            Err(e) => missing(e)?,
        }
    }
    Err(nothing())
}

/// Answers with what a request is for.
///
/// # Errors
/// 404, 405, 412 or 416, or what is wrong with the disk.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn serve(
    files: &Arc<Files>,
    head: &Parts,
    requested: &Requested<'_>,
    target: Target,
) -> Result<Served, ErrorResponse> {
    check_method(head)?;
    match target {
        Target::File(name, _) if is_source(&name) => {
            Err(nothing().because("the text of PHP scripts is not served, and no fastcgi runs this one"))
        }
        Target::File(name, file) => serve_file(files, head, &name, file).await,
        Target::NoSlash => Ok(with_slash(requested)),
        Target::Listed(directory) => list(directory).await,
    }
}

fn check_method(head: &Parts) -> Result<(), ErrorResponse> {
    if head.method == Method::GET || head.method == Method::HEAD {
        return Ok(());
    }
    Err(ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, "files are only for GET and HEAD")
        .with(ALLOW, HeaderValue::from_static("GET, HEAD")))
}

pub(crate) fn nothing() -> ErrorResponse {
    ErrorResponse::new(StatusCode::NOT_FOUND, "there is no such file")
}

fn in_directory(directory: &OsStr, name: &str) -> OsString {
    Path::new(directory).join(name).into()
}

/// What an error says of a file: that there is none for clients, or that something is wrong here.
fn missing(e: Errno) -> Result<(), ErrorResponse> {
    let status = match e {
        // EXDEV: a link that leads out of the directory. ENXIO: a socket.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG | Errno::NXIO => {
            return Ok(());
        }
        Errno::ACCESS | Errno::PERM => {
            return Err(nothing().because("the file can't be opened: permission denied"));
        }
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let sentence = "the file can't be read at the moment";
    Err(ErrorResponse::new(status, sentence).because(format!("the file can't be opened: {e}")))
}

/// Links in a directory's index are relative to the directory, so its address ends with a slash.
pub(crate) fn with_slash(requested: &Requested<'_>) -> Served {
    let query = requested.query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = Response::new(AnswerBody::whole(""));
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(local(format!("{}/{query}", requested.path))) {
        answer.headers_mut().insert(LOCATION, location);
    }
    Served::Answer(answer)
}

async fn list(directory: OwnedFd) -> Result<Served, ErrorResponse> {
    let page = match open::blocking(move || listing::page(&directory)).await {
        Ok(page) => page.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    let page = page.map_err(|e| {
        ErrorResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "the directory can't be read at the moment")
            .because(format!("the directory can't be read: {e}"))
    })?;
    let mut answer = Response::new(AnswerBody::whole(page));
    answer.headers_mut().insert(CONTENT_TYPE, HTML);
    Ok(Served::Answer(answer))
}

/// Serves a file, or one beside it in a coding that the client prefers.
async fn serve_file(
    files: &Arc<Files>,
    head: &Parts,
    name: &OsStr,
    mut file: File,
) -> Result<Served, ErrorResponse> {
    let mut opened = Cow::from(name);
    let mut coding = None;
    if files.precompressed {
        for accepted in coding::accepted(&head.headers, [Coding::Br, Coding::Zstd, Coding::Gzip]) {
            let extension = match accepted {
                Coding::Br => ".br",
                Coding::Zstd => ".zst",
                Coding::Gzip => ".gz",
            };
            let beside = open::beside(name, extension);
            if let Ok(Found::File(found)) = open::open(files, &beside).await {
                (file, coding, opened) = (found, Some(accepted), beside.into());
                break;
            }
        }
    }
    let now = SystemTime::now();
    let validators = validators(&file, coding, now);
    let mut fields = HeaderMap::with_capacity(10);
    if let Ok(modified) = HeaderValue::try_from(httpdate::fmt_http_date(validators.modified)) {
        fields.insert(LAST_MODIFIED, modified);
    }
    fields.insert(ETAG, validators.etag.clone());
    if let Some(cache) = &files.cache {
        fields.insert(CACHE_CONTROL, cache.clone());
    }
    if files.precompressed {
        fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    let verdict = conditions::judge(&head.headers, &validators, now);
    match verdict {
        Verdict::NotModified => return Ok(answered(StatusCode::NOT_MODIFIED, fields, AnswerBody::whole(""))),
        Verdict::Failed => {
            let sentence = "the file is not the version that the request is for";
            return Err(ErrorResponse::new(StatusCode::PRECONDITION_FAILED, sentence));
        }
        Verdict::Whole | Verdict::WithRange => {}
    }
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(coding) = coding {
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    }
    let content_type = media_type(name);
    let len = file.version.len;
    // RFC 9110 §14.2: a Range means something only to GET.
    let range =
        head.headers.get(RANGE).filter(|_| verdict == Verdict::WithRange && head.method == Method::GET);
    match range.map_or(Selection::Whole, |range| ranges::select(range, len)) {
        Selection::Nothing => {
            let answer = ErrorResponse::new(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such part");
            let size = HeaderValue::try_from(format!("bytes */{len}")).ok();
            Err(size.into_iter().fold(answer, |answer, size| answer.with(CONTENT_RANGE, size)))
        }
        Selection::Whole => {
            fields.insert(CONTENT_TYPE, content_type);
            fields.insert(CONTENT_LENGTH, len.into());
            let body = if head.method == Method::HEAD {
                AnswerBody::whole("")
            } else {
                whole(files, &opened, file, now)
            };
            Ok(answered(StatusCode::OK, fields, body))
        }
        Selection::One(range) => {
            fields.insert(CONTENT_TYPE, content_type);
            if let Ok(field) = HeaderValue::try_from(ranges::content_range(&range, len)) {
                fields.insert(CONTENT_RANGE, field);
            }
            let body = FileBody::new(file, [Part::File(range)]);
            Ok(in_part(fields, body))
        }
        Selection::Several(ranges) => {
            let multipart = Multipart::new(content_type, len);
            if let Ok(field) = HeaderValue::try_from(multipart.content_type()) {
                fields.insert(CONTENT_TYPE, field);
            }
            let parts = ranges
                .into_iter()
                .flat_map(|range| [Part::Text(multipart.before(&range)), Part::File(range)]);
            let body = FileBody::new(file, parts.chain([Part::Text(multipart.end())]));
            Ok(in_part(fields, body))
        }
    }
}

fn answered(status: StatusCode, fields: HeaderMap, body: AnswerBody) -> Served {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = fields;
    Served::Answer(answer)
}

fn in_part(mut fields: HeaderMap, body: FileBody) -> Served {
    fields.insert(CONTENT_LENGTH, body.left().into());
    answered(StatusCode::PARTIAL_CONTENT, fields, AnswerBody::File(Box::new(body)))
}

/// All of a file. One of a single chunk is read at once, if it is in memory.
fn whole(files: &Arc<Files>, name: &OsStr, file: File, now: SystemTime) -> AnswerBody {
    if let Some(content) = file.content {
        return AnswerBody::whole(content);
    }
    let len = file.version.len;
    match usize::try_from(len) {
        Ok(0) => return AnswerBody::whole(""),
        Ok(len @ ..=CHUNK_LEN) => {
            if let Ok(bytes) = open::read_cached(&file.file, 0, len)
                && bytes.len() == len
            {
                kept::put_content(files, name, &file, &bytes, now);
                return AnswerBody::whole(bytes);
            }
        }
        _ => {}
    }
    AnswerBody::File(Box::new(FileBody::new(file, [Part::File(0..len)])))
}

/// The entity tag has the time in nanoseconds, so that two versions within a second differ.
fn validators(file: &File, coding: Option<Coding>, now: SystemTime) -> Validators {
    let version = file.version;
    let etag = match coding {
        Some(coding) => {
            format!("\"{:x}-{:x}-{}\"", version.modified.as_nanos(), version.len, coding.as_str())
        }
        None => format!("\"{:x}-{:x}\"", version.modified.as_nanos(), version.len),
    };
    // RFC 9110 §8.8.2.1: not in the future.
    let modified = version.modified_at().min(now);
    Validators { etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\"")), modified }
}
