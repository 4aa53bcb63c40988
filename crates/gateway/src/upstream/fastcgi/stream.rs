//! A connection to a server of FastCGI, for one request: what is written is the request's [beginning](record::begin)
//! and then its body, what is read is the script's answer as an HTTP/1.0 response.
//!
//! Its end is the end of the request: a connection that ends before is an error, and no end of an answer.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use net_io::Buffer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::fastcgi::head;
use crate::upstream::fastcgi::record::{self, CONTENT_LEN_MAX, Ending, Records, Said};
use crate::upstream::h1::connection::READ_LEN;

/// Gets what a script writes to its standard error.
pub(crate) type Complain = Box<dyn FnMut(&[u8]) + Send>;

/// Why a server's answer is none. It is inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadAnswer {
    /// What came are no records.
    #[error("{0}")]
    Record(#[from] record::BadRecord),
    /// What the script has written can't become an answer.
    #[error("{0}")]
    Head(#[from] head::BadHead),
    /// It has written the front of a head.
    #[error("the script ended before the head of its answer was complete")]
    CutHead,
    /// It has written nothing.
    #[error("the script ended without an answer")]
    Nothing,
    /// The server doesn't do such a thing.
    #[error("it refused the request with status {0}")]
    Refused(u8),
}

impl From<BadAnswer> for io::Error {
    fn from(bad: BadAnswer) -> Self {
        Self::new(io::ErrorKind::InvalidData, bad)
    }
}

/// A connection, from before a request to the end of its answer.
pub(crate) struct FastcgiStream<T> {
    io: T,
    upload: Upload,
    records: Records,
    /// What has come and isn't read.
    inbox: BytesMut,
    /// The front of the answer, until its head is whole.
    front: Option<BytesMut>,
    /// What may be read.
    ready: Bytes,
    /// The request is over.
    ended: bool,
    complain: Complain,
}

/// How far a request has been sent.
#[derive(Debug)]
struct Upload {
    /// Of the beginning, which consists of records already.
    beginning_left: usize,
    /// Of the body, in records that haven't begun.
    body_left: u64,
    /// The header of the record that is being sent, and how much of it is.
    header: [u8; 8],
    header_sent: usize,
    /// Of the record's content.
    content_left: usize,
    /// How much is sent of the header behind everything.
    end_sent: usize,
}

impl<T> FastcgiStream<T> {
    /// Over a new connection. First `beginning_len` bytes are written that are passed on as they are, then `body_len`
    /// that are put into records. Without a body the beginning holds its end.
    pub(crate) fn new(io: T, beginning_len: usize, body_len: u64, complain: Complain) -> Self {
        let upload = Upload {
            beginning_left: beginning_len,
            body_left: body_len,
            header: [0; 8],
            header_sent: 8,
            content_left: 0,
            end_sent: if body_len == 0 { record::stdin(0).len() } else { 0 },
        };
        Self {
            io,
            upload,
            records: Records::default(),
            inbox: BytesMut::new(),
            front: Some(BytesMut::new()),
            ready: Bytes::new(),
            ended: false,
            complain,
        }
    }

    /// Takes what there is to say from what has come. False: more is needed.
    fn receive(&mut self) -> io::Result<bool> {
        let said = self.records.next(&mut self.inbox).map_err(BadAnswer::from)?;
        match (said, &mut self.front) {
            (None, _) => return Ok(false),
            (Some(Said::Error(text)), _) => (self.complain)(&text),
            (Some(Said::Out(bytes)), None) => self.ready = bytes,
            (Some(Said::Out(bytes)), Some(front)) => {
                front.extend_from_slice(&bytes);
                if let Some((len, head)) = head::http(front).map_err(BadAnswer::from)? {
                    let mut answer = BytesMut::from(&head[..]);
                    answer.extend_from_slice(&front[len..]);
                    self.ready = answer.freeze();
                    self.front = None;
                }
            }
            (Some(Said::End(Ending::Complete(_))), None) => self.ended = true,
            (Some(Said::End(Ending::Complete(_))), Some(front)) => {
                let bad = if front.is_empty() { BadAnswer::Nothing } else { BadAnswer::CutHead };
                return Err(bad.into());
            }
            (Some(Said::End(Ending::Overloaded)), _) => {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "it is overloaded"));
            }
            (Some(Said::End(Ending::Refused(status))), _) => return Err(BadAnswer::Refused(status).into()),
        }
        Ok(true)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FastcgiStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let len = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..len]);
                this.ready.advance(len);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.receive()? {
                continue;
            }
            let mut buffer = Buffer::take();
            let mut read = ReadBuf::new(&mut buffer[..READ_LEN]);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                let what = "it was closed before the end of the request";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
            }
            this.inbox.extend_from_slice(read.filled());
        }
    }
}

impl Upload {
    /// Everything but the last header is sent.
    fn is_sent(&self) -> bool {
        self.beginning_left == 0 && self.body_left == 0 && self.content_left == 0
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FastcgiStream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, upload, .. } = self.get_mut();
        if upload.beginning_left > 0 {
            let len = upload.beginning_left.min(buf.len());
            let written = ready!(Pin::new(io).poll_write(cx, &buf[..len]))?;
            upload.beginning_left -= written;
            return Poll::Ready(Ok(written));
        }
        if upload.content_left == 0 {
            let rest = usize::try_from(upload.body_left).unwrap_or(usize::MAX);
            let len = buf.len().min(CONTENT_LEN_MAX).min(rest);
            if len == 0 {
                return Poll::Ready(Ok(0)); // callers keep to the length
            }
            (upload.header, upload.header_sent) = (record::stdin(len), 0);
            upload.content_left = len;
            upload.body_left -= len as u64;
        }
        let content = &buf[..upload.content_left.min(buf.len())];
        let end = record::stdin(0);
        loop {
            let header = &upload.header[upload.header_sent..];
            let is_last = upload.body_left == 0 && content.len() == upload.content_left;
            let end: &[u8] = if is_last { &end } else { &[] };
            let parts = [IoSlice::new(header), IoSlice::new(content), IoSlice::new(end)];
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            let of_header = written.min(header.len());
            let of_content = (written - of_header).min(content.len());
            upload.header_sent += of_header;
            upload.content_left -= of_content;
            upload.end_sent += written - of_header - of_content;
            if of_content > 0 {
                return Poll::Ready(Ok(of_content));
            }
        }
    }

    /// Ends the body, if all of it is written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, upload, .. } = self.get_mut();
        let end = record::stdin(0);
        while upload.is_sent() && upload.end_sent < end.len() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &end[upload.end_sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            upload.end_sent += written;
        }
        Pin::new(io).poll_flush(cx)
    }

    /// The server must not take what it has for the whole.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<T> fmt::Debug for FastcgiStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastcgiStream")
            .field("upload", &self.upload)
            .field("records", &self.records)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Method;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::upstream::body::ToBackend;
    use crate::upstream::h1::connection::{BrokeOff, IdleConnection, SendRequestError};
    use crate::upstream::h1::request::RequestWriter;

    const END: [u8; 8] = [0; 8];

    fn said(kind: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[1, kind, 0, 1, high, low, 5, 0][..], content, &[0xaa; 5]].concat()
    }

    fn stream(io: DuplexStream, beginning_len: usize, body_len: u64) -> FastcgiStream<DuplexStream> {
        FastcgiStream::new(io, beginning_len, body_len, Box::new(|_| {}))
    }

    /// What the standard input of a script is, from the bytes of its records.
    fn stdin(mut wire: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let (header, rest) = wire.split_first_chunk::<8>().unwrap();
            let len: usize = u16::from_be_bytes([header[4], header[5]]).into();
            assert_eq!((header[..4].to_vec(), header[6]), (vec![1, 5, 0, 1], 0));
            body.extend_from_slice(&rest[..len]);
            wire = &rest[len..];
            if len == 0 {
                assert!(wire.is_empty(), "nothing stands behind the end");
                return body;
            }
        }
    }

    #[tokio::test]
    async fn a_body_becomes_records_whatever_the_connection_takes() {
        let body: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        for (room, len) in [(1, 3), (1, 40), (7, 1000), (1000, 1), (1000, 5000), (1 << 20, 200_000)] {
            let (near, mut far) = duplex(room);
            let mut io = stream(near, 5, len as u64);
            let front = [b"begin", &body[..len]].concat();
            let sending = async move {
                io.write_all(&front).await.unwrap();
                io.flush().await.unwrap();
                assert_eq!(io.write(b"more").await.unwrap(), 0, "callers keep to the length");
            };
            let mut wire = Vec::new();
            let (_, read) = tokio::join!(sending, far.read_to_end(&mut wire));
            read.unwrap();
            let records = wire.strip_prefix(b"begin").unwrap();
            assert!(stdin(records) == body[..len], "{room} {len}");
        }
    }

    /// Asks a server that says these bytes, of which `room` fit into the connection at once.
    async fn asked(wire: Vec<u8>, room: usize) -> Result<(u16, Result<Vec<u8>, BrokeOff>), SendRequestError> {
        let (near, mut far) = duplex(room);
        tokio::spawn(async move {
            let mut beginning = [0; 5];
            far.read_exact(&mut beginning).await.unwrap();
            far.write_all(&wire).await.unwrap();
        });
        let request = RequestWriter::behind(b"begin".to_vec(), &Method::POST, ToBackend::empty());
        let (head, body) = IdleConnection::new(stream(near, 5, 0)).send_request(request, None).await?;
        Ok((head.status.as_u16(), body.collect().await.map(|body| body.to_bytes().to_vec())))
    }

    #[tokio::test]
    async fn an_answer_comes_in_any_pieces() {
        let wire = [
            said(7, b"oh"),
            said(6, b"Status: 404 Not"),
            said(6, b" Found\r\nX-A: b\n\nhe"),
            said(7, b"no"),
            said(6, b"llo"),
            said(6, b""),
            said(3, &END),
        ];
        for room in [1, 2, 7, 1000] {
            let (status, body) = asked(wire.concat(), room).await.unwrap();
            assert_eq!((status, &body.unwrap()[..]), (404, &b"hello"[..]), "{room}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end() {
        let head = said(6, b"X-A: b\n\nhello");
        for wire in
            [head.clone(), [head.clone(), said(6, b"")].concat(), [&head[..], &said(3, &END)[..15]].concat()]
        {
            let (_, body) = asked(wire, 1000).await.unwrap();
            let BrokeOff::Io(e) = body.unwrap_err() else { panic!("it can't be read") };
            assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        }
        let short = [said(6, b"Content-Length: 9\n\nhello"), said(3, &END)].concat();
        assert!(matches!(asked(short, 1000).await.unwrap().1, Err(BrokeOff::End)));
        let (_, body) = asked([head, b"HTTP".to_vec()].concat(), 1000).await.unwrap();
        assert!(body.unwrap_err().to_string().contains("does not speak FastCGI"));
        for (wire, expect) in [
            (vec![], io::ErrorKind::UnexpectedEof),
            (said(3, &END), io::ErrorKind::InvalidData),
            (said(3, &[0, 0, 0, 0, 2, 0, 0, 0]), io::ErrorKind::ConnectionRefused),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), io::ErrorKind::InvalidData),
            (said(6, b"<html>\n\n"), io::ErrorKind::InvalidData),
        ] {
            let Err(SendRequestError::Broke(e)) = asked(wire, 1000).await else { panic!("{expect}") };
            assert_eq!(e.kind(), expect, "{e}");
        }
    }

    #[tokio::test]
    async fn complaints_are_heard_as_they_come() {
        let (near, mut far) = duplex(1000);
        let heard = Arc::new(Mutex::new(Vec::<u8>::new()));
        let keep = heard.clone();
        let mut io = FastcgiStream::new(near, 0, 0, Box::new(move |text| keep.lock().unwrap().extend(text)));
        far.write_all(&[said(7, b"a line\n"), said(6, b"A: b\n\n")].concat()).await.unwrap();
        let mut answer = [0; 64];
        let len = io.read(&mut answer).await.unwrap();
        assert_eq!(&answer[..len], b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n");
        assert_eq!(*heard.lock().unwrap(), b"a line\n");
    }
}
