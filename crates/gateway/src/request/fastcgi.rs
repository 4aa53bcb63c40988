//! Requests for scripts, which a server of FastCGI runs, and for the files beside them.
//!
//! Each request has a connection of its own: a process of PHP-FPM serves one connection at a time, so that one which is
//! kept for later keeps a process from others.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Response, StatusCode, Version, response};
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep};
use tracing::warn;

use crate::context::Connection;
use crate::request::attempts::Attempts;
use crate::request::body::AnswerBody;
use crate::request::failure::{Failure, log_repairs};
use crate::request::form;
use crate::request::reply::{ErrorResponse, RequestError, Served};
use crate::request::service::files::{self, Target};
use crate::session::report::Report;
use crate::site::fastcgi::Fastcgi;
use crate::site::retry::RetryOn;
use crate::site::route::Route;
use crate::telemetry::peer::cut;
use crate::upstream::body::{RequestBody, ToBackend};
use crate::upstream::dial::dial;
use crate::upstream::fastcgi::params::{self, About};
use crate::upstream::fastcgi::record;
use crate::upstream::fastcgi::stream::{Complain, FastcgiStream};
use crate::upstream::forward::{self, Hop};
use crate::upstream::h1::connection::{IdleConnection, ResponseBody, SendRequestError};
use crate::upstream::h1::request::RequestWriter;
use crate::upstream::stream::BackendStream;

/// What PHP-FPM says of a script that it can't open, because it isn't there or its user may not read it.
const UNOPENED: [&str; 2] = ["Primary script unknown", "Unable to open primary script"];
/// How much of what a script has to say to operators is logged. In lines.
const COMPLAINTS_MAX: u32 = 32;

/// Has a script answer, or serves a file.
///
/// # Errors
/// 404; 411 if the body has no length and is too long to wait for; 408 if it is too slow; what files and servers give.
pub(super) async fn answer(
    connection: &Connection,
    route: &Arc<Route>,
    scripts: &Arc<Fastcgi>,
    report: &mut Report,
    hop: &Hop<'_>,
    head: Box<Parts>,
    body: RequestBody,
) -> Result<Served, RequestError> {
    let asked = form::requested(&head, hop.host, route, &[]);
    let target = files::find(&scripts.files, &asked).await?;
    match target {
        Target::File(name, file) if Fastcgi::is_script(&name) => {
            drop(file); // it was looked for, and the server opens it
            let request = Request { connection, route, scripts, hop, name: &name };
            request.run(report, head, body).await
        }
        target if scripts.serves_files => Ok(files::serve(&scripts.files, &head, &asked, target).await?),
        Target::NoSlash => Ok(files::with_slash(&asked)),
        Target::File(..) | Target::Listed(_) => Err(files::nothing().into()),
    }
}

/// A request for a script.
struct Request<'a> {
    connection: &'a Connection,
    route: &'a Route,
    scripts: &'a Fastcgi,
    hop: &'a Hop<'a>,
    /// In the directory of the scripts.
    name: &'a OsStr,
}

impl Request<'_> {
    async fn run(
        &self,
        report: &mut Report,
        mut head: Box<Parts>,
        mut body: RequestBody,
    ) -> Result<Served, RequestError> {
        body.settle(&head).await;
        let mut body = ToBackend::new(body, None, self.connection.limits.body_rate);
        report.received(body.progress());
        let max = self.scripts.body_len_max;
        if max > 0 && body.size_hint().exact().is_none_or(|len| len <= max) {
            // A process of the server serves one request at a time: no slow client is to occupy it.
            Box::pin(body.hold(max)).await; // larger than the rest
        }
        if let Some(fault) = body.take_fault() {
            let stalled = body.progress().is_stalled();
            let failure = if stalled { Failure::ClientStalled } else { Failure::Body(fault) };
            return Err(failure.into());
        }
        if !body.is_end_stream() && !body.has_length() {
            let sentence = "the request's body is too long to be sent without a Content-Length";
            return Err(ErrorResponse::new(StatusCode::LENGTH_REQUIRED, sentence).into());
        }
        let upstream = &self.scripts.upstream;
        let mut attempts = Attempts::begin(self.connection, upstream, report, self.hop, &head, false).await?;
        let beginning = self.beginning(report, &mut head, &body, &attempts);
        let mut timer = pin!(sleep(upstream.response_timeout));
        let sent = self.send(&mut attempts, report, &head, beginning, body, timer.as_mut()).await;
        let (mut head, answer) = sent.inspect_err(|failure| attempts.note(report, failure))?;
        attempts.answered(report, head.status);
        log_repairs(upstream, answer.repairs());
        forward::response(&mut head.headers);
        head.version = Version::HTTP_11;
        let body = AnswerBody::Backend { answer: answer.boxed(), lease: None };
        Ok(Served::Answer(Response::from_parts(head, body)))
    }

    /// What the server gets before the body.
    fn beginning(
        &self,
        report: &Report,
        head: &mut Parts,
        body: &ToBackend,
        attempts: &Attempts<'_>,
    ) -> Vec<u8> {
        let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
        let (version, https) = (head.version, self.hop.is_https(&head.headers));
        let client = self.hop.client(&head.headers);
        let body_len = match body.size_hint().exact() {
            Some(0) | None => head.headers.contains_key(CONTENT_LENGTH).then_some(0),
            len => len,
        };
        params::remove_odd_names(&mut head.headers);
        let lines = forward::request(head, self.hop, attempts.endpoint());
        let directory = self.scripts.files.directory.as_os_str().as_bytes();
        let directory = directory.strip_suffix(b"/").unwrap_or(directory);
        let prefix = self.route.matcher.path.prefix().map(ToString::to_string).unwrap_or_default();
        let variables = params::variables(
            head,
            &lines,
            &About {
                document_root: self.scripts.document_root.as_ref().map_or(directory, |root| root.as_bytes()),
                script: self.name.as_bytes(),
                prefix: prefix.trim_end_matches('/'),
                uri: if uri == "*" { "/" } else { &uri },
                version,
                https,
                host: self.hop.host,
                client,
                client_port: self.connection.port_of(client),
                local: Some(self.connection.local).filter(|local| !local.ip().is_unspecified()),
                body_len,
                user: report.subject(),
            },
        );
        record::begin(&variables)
    }

    /// Sends the request to one server after the other, until one answers.
    async fn send(
        &self,
        attempts: &mut Attempts<'_>,
        report: &mut Report,
        head: &Parts,
        mut beginning: Vec<u8>,
        body: ToBackend,
        mut timer: std::pin::Pin<&mut Sleep>,
    ) -> Result<(response::Parts, ResponseBody<FastcgiStream<BackendStream>>), Failure> {
        let upstream = attempts.upstream();
        let progress = body.progress();
        let body_len = body.size_hint().exact().unwrap_or(0);
        if body.is_end_stream() || body_len == 0 {
            beginning.extend_from_slice(&record::stdin(0));
        }
        let spare = if attempts.spares(head) { body.copy() } else { None };
        let spare = spare.map(|body| (beginning.clone(), body));
        let beginning_len = beginning.len();
        let mut request = RequestWriter::behind(beginning, &head.method, body);
        loop {
            let begun = Instant::now();
            let io = match dial(upstream.connector, attempts.endpoint()).await {
                Ok(io) => io,
                Err(failure) => {
                    let failure = Failure::from(failure);
                    if !attempts.next_after(report, &failure) {
                        return Err(failure);
                    }
                    continue;
                }
            };
            report.times().connected(begun);
            let begun = Instant::now();
            let unopened = Arc::new(AtomicBool::new(false));
            let stream = FastcgiStream::new(io, beginning_len, body_len, self.complain(unopened.clone()));
            progress.touch();
            let asked = tokio::select! {
                biased;
                asked = IdleConnection::new(stream).send_request(request, None) => asked,
                () = progress.backend_idles(upstream.response_timeout, timer.as_mut()) => {
                    return Err(Failure::Timeout { after: upstream.response_timeout });
                }
            };
            if asked.is_ok() {
                report.times().answered(begun);
            }
            request = match asked {
                Err(_) if progress.is_stalled() => return Err(Failure::ClientStalled),
                Err(SendRequestError::Retry { why, .. } | SendRequestError::Broke(why))
                    if why.kind() == io::ErrorKind::InvalidData =>
                {
                    return Err(Failure::NotFastcgi(why));
                }
                Err(SendRequestError::Retry { request, why, .. }) => {
                    if !attempts.next(report, RetryOn::Broken, &why) {
                        return Err(Failure::Broke(why));
                    }
                    *request
                }
                Err(e) => return Err(e.into()),
                Ok((answer, body)) => {
                    let again = spare.as_ref().and_then(|(beginning, body)| Some((beginning, body.copy()?)));
                    match again {
                        Some((beginning, copy)) if attempts.next_after_status(report, answer.status) => {
                            RequestWriter::behind(beginning.clone(), &head.method, copy)
                        }
                        _ => {
                            progress.answered();
                            if unopened.load(Ordering::Relaxed) {
                                report.cause("the server can't open the script");
                            }
                            return Ok((answer, body));
                        }
                    }
                }
            };
        }
    }

    /// Logs what the script writes to its standard error, each line as one.
    fn complain(&self, unopened: Arc<AtomicBool>) -> Complain {
        let (route, script) = (self.route.id.clone(), self.name.to_string_lossy().into_owned());
        let mut count = 0;
        Box::new(move |text| {
            let text = String::from_utf8_lossy(text);
            if UNOPENED.iter().any(|words| text.contains(words)) && !unopened.swap(true, Ordering::Relaxed) {
                warn!(
                    %route, script = %cut(&script),
                    "the server can't open the script (SCRIPT_FILENAME): may its user read it, and does it see it under \
                     another path (document_root)?"
                );
            }
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                count += 1;
                if count <= COMPLAINTS_MAX {
                    warn!(%route, script = %cut(&script), text = %cut(line), "a script wrote to its standard error");
                } else if count == COMPLAINTS_MAX + 1 {
                    warn!(%route, script = %cut(&script), "a script wrote more to its standard error, which is left out");
                }
            }
        })
    }
}
