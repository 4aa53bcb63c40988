//! A file's bytes on their way to a client.
//!
//! A file that changes meanwhile is cut off: what was announced can't come any more, and bytes of two versions in one
//! answer would be neither.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::request::file::open::{self, CHUNK_LEN};
use crate::request::file::opened::{File, Version};

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// Parts of a file, one after the other.
pub(crate) struct FileBody {
    file: Arc<OwnedFd>,
    version: Version,
    parts: VecDeque<Part>,
    left: u64,
    /// What is not in memory, on its way from the disk.
    reading: Option<Reading>,
}

/// What is sent.
pub(crate) enum Part {
    /// Between parts of the file.
    Text(Bytes),
    /// Of the file.
    File(Range<u64>),
}

/// Why the rest will not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It is shorter now, or has been written to.
    #[error("the file has changed while it was sent")]
    Changed,
    /// It can't be read.
    #[error("the file can't be read: {0}")]
    Io(#[from] io::Error),
}

impl FileBody {
    /// These parts; none is empty.
    pub(crate) fn new(file: File, parts: impl IntoIterator<Item = Part>) -> Self {
        let parts: VecDeque<_> = parts.into_iter().collect();
        let left = parts.iter().map(Part::len).sum();
        Self { file: file.file, version: file.version, parts, left, reading: None }
    }

    /// Bytes that are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The file has changed, or can't be read.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, FileError>> {
        let range = match self.parts.front_mut() {
            None => return Poll::Ready(Ok(None)),
            Some(Part::Text(text)) => {
                let text = std::mem::take(text);
                self.parts.pop_front();
                self.left -= text.len() as u64;
                return Poll::Ready(Ok(Some(text)));
            }
            Some(Part::File(range)) => range,
        };
        let len = CHUNK_LEN.min(usize::try_from(range.end - range.start).unwrap_or(CHUNK_LEN));
        let read = match &mut self.reading {
            Some(reading) => {
                let read = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                read
            }
            None => match open::read_cached(&self.file, range.start, len) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let reading = open::read_from_disk(self.file.clone(), range.start, len);
                    let reading = self.reading.insert(Box::pin(reading));
                    let read = ready!(reading.as_mut().poll(cx));
                    self.reading = None;
                    read
                }
                read => read,
            },
        }?;
        if read.is_empty() || !open::is_unchanged(&self.file, self.version) {
            return Poll::Ready(Err(FileError::Changed));
        }
        self.left -= read.len() as u64;
        range.start += read.len() as u64;
        if range.is_empty() {
            self.parts.pop_front();
        }
        Poll::Ready(Ok(Some(read)))
    }
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBody").field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Seek, Write};

    use super::*;
    use crate::site::files::Files;

    async fn opened(directory: &std::path::Path, name: &str) -> File {
        let files = Arc::new(Files::new(directory.to_owned()));
        match open::open(&files, name.as_ref()).await {
            Ok(open::Found::File(file)) => file,
            other => panic!("{other:?}"),
        }
    }

    async fn next(body: &mut FileBody) -> Result<Option<Bytes>, FileError> {
        poll_fn(|cx| body.poll_next(cx)).await
    }

    #[tokio::test]
    async fn parts_come_one_after_the_other() {
        let directory = tempfile::TempDir::new().unwrap();
        let content: Vec<u8> = (0..200_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        std::fs::write(directory.path().join("f"), &content).unwrap();
        let file = opened(directory.path(), "f").await;
        let parts =
            [Part::Text("a".into()), Part::File(5..150_000), Part::Text("b".into()), Part::File(0..1)];
        let mut body = FileBody::new(file, parts);
        assert_eq!(body.left(), 149_998);
        let mut read = Vec::new();
        while let Some(bytes) = next(&mut body).await.unwrap() {
            assert!(!bytes.is_empty() && bytes.len() <= CHUNK_LEN);
            read.extend_from_slice(&bytes);
        }
        assert_eq!(body.left(), 0);
        assert_eq!(read, [b"a", &content[5..150_000], b"b", &content[..1]].concat());
    }

    #[tokio::test]
    async fn a_file_that_changes_is_cut_off() {
        for change in ["shorter", "longer", "written"] {
            let directory = tempfile::TempDir::new().unwrap();
            let path = directory.path().join("f");
            std::fs::write(&path, vec![1; 3 * CHUNK_LEN]).unwrap();
            let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
            let file = opened(directory.path(), "f").await;
            let mut body = FileBody::new(file, [Part::File(0..3 * CHUNK_LEN as u64)]);
            assert_eq!(next(&mut body).await.unwrap().unwrap().len(), CHUNK_LEN);
            let mut same = std::fs::File::options().write(true).open(&path).unwrap();
            match change {
                "shorter" => same.set_len(CHUNK_LEN as u64).unwrap(),
                "longer" => same.set_len(4 * CHUNK_LEN as u64).unwrap(),
                _ => {
                    same.seek(io::SeekFrom::Start(2 * CHUNK_LEN as u64)).unwrap();
                    same.write_all(b"2").unwrap();
                }
            }
            let read = next(&mut body).await;
            assert!(matches!(read, Err(FileError::Changed)), "{change}: {read:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_file_of_the_directory_is_not_opened() {
        let outside = tempfile::TempDir::new().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let directory = outside.path().join("www");
        std::fs::create_dir_all(directory.join("sub")).unwrap();
        std::fs::write(directory.join("in"), "in").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, directory.join(name)).unwrap();
        link("in", "good");
        link("../in", "sub/good");
        link("../secret", "up");
        link("../../secret", "sub/up");
        link(outside.path().join("secret").to_str().unwrap(), "absolute");
        link("/proc/self/root/etc/passwd", "magic");
        link("loop", "loop");
        link("..", "parent");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
        let files = Arc::new(Files::new(directory));
        for name in ["in", "good", "sub/good"] {
            assert!(matches!(open::open(&files, name.as_ref()).await, Ok(open::Found::File(_))), "{name}");
        }
        for name in [
            "up",
            "sub/up",
            "absolute",
            "magic",
            "loop",
            "parent/secret",
            "fifo",
            "socket",
            "../secret",
            "/etc/passwd",
            "sub/../../secret",
            "in/x",
            "none",
        ] {
            assert!(open::open(&files, name.as_ref()).await.is_err(), "{name}");
        }
        for name in ["", "sub"] {
            assert!(
                matches!(open::open(&files, name.as_ref()).await, Ok(open::Found::Directory(_))),
                "{name}"
            );
        }
    }
}
