//! A body in a content coding, made on its way.
//!
//! Whenever the source has nothing more at hand, what has come is flushed, so that events of a server arrive at once.
//! More than a few bytes are compressed on a blocking thread, and no more of these than the machine has cores: the
//! sockets of a worker don't wait for it. The codecs' memory is bounded in total.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::CParameter;
use compression_codecs::{EncodeV2, GzipEncoder, ZstdEncoder};
use flate2::Compression;
use http_body::Frame;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use crate::request::coding::Coding;

/// For all codecs together, in KiB.
const MEMORY_KIB: usize = 64 * 1024;
/// What one gzip codec takes, in KiB (measured: 371).
const GZIP_KIB: u32 = 384;
/// What one zstd codec with [`ZSTD_WINDOW_LOG`] takes, in KiB: the window, its buffers and tables.
const ZSTD_KIB: u32 = 2048;
/// A window of 512 KiB, far below the 8 MiB that HTTP allows (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 19;
/// So many bytes are compressed on the worker itself, those counted that the codec has taken and not worked on yet: a
/// codec gathers up to 128 KiB and then compresses all of it at once. Some 100 µs of gzip.
const INLINE_LEN_MAX: usize = 4096;
/// So many at once on a blocking thread.
const SLICE_LEN: usize = 64 * 1024;
/// Room for output.
const OUTPUT_LEN: usize = 16 * 1024;

static MEMORY: Semaphore = Semaphore::const_new(MEMORY_KIB);
/// Blocking threads that compress.
static THREADS: Semaphore = Semaphore::const_new(2);

type Codec = Box<dyn EncodeV2 + Send>;
type Working = Pin<Box<dyn Future<Output = io::Result<(Codec, Bytes)>> + Send>>;

/// What is done with the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Encode,
    Flush,
    Finish,
}

/// Where a body comes from.
pub(crate) trait Source {
    /// Why the rest will not come; that of the codec is an [`io::Error`].
    type Error: From<io::Error>;

    /// The next frame; `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Self::Error>>;
}

/// A codec, for which there is memory.
pub(crate) struct Reserved {
    codec: Codec,
    memory: SemaphorePermit<'static>,
}

/// A body that is compressed on its way.
pub(crate) struct CodedBody<S> {
    source: S,
    /// Away while a blocking thread has it.
    codec: Option<Codec>,
    working: Option<Working>,
    /// From the source, not compressed yet.
    input: Bytes,
    /// The same in small pieces, which are compressed together.
    gathered: BytesMut,
    /// Bytes that are in the codec and have not come out.
    held: usize,
    /// The step that was taken last.
    step: Step,
    trailers: Option<Frame<Bytes>>,
    source_ended: bool,
    finished: bool,
    _memory: SemaphorePermit<'static>,
}

impl Reserved {
    /// A codec; `None` if the memory for codecs is used up.
    pub(crate) fn new(coding: Coding) -> Option<Self> {
        let kib = if coding == Coding::Zstd { ZSTD_KIB } else { GZIP_KIB };
        let memory = MEMORY.try_acquire_many(kib).ok()?;
        let codec: Codec = match coding {
            Coding::Zstd => {
                let window = CParameter::window_log(ZSTD_WINDOW_LOG);
                Box::new(ZstdEncoder::new_with_params(CParameter::quality(Level::Precise(3)), &[window]))
            }
            Coding::Gzip | Coding::Br => Box::new(GzipEncoder::new(Compression::new(5).into())),
        };
        Some(Self { codec, memory })
    }
}

impl<S: Source> CodedBody<S> {
    /// Begins with a body.
    pub(crate) fn new(reserved: Reserved, source: S) -> Self {
        Self {
            source,
            codec: Some(reserved.codec),
            working: None,
            input: Bytes::new(),
            gathered: BytesMut::new(),
            held: 0,
            step: Step::Encode,
            trailers: None,
            source_ended: false,
            finished: false,
            _memory: reserved.memory,
        }
    }

    /// It is all read.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished && self.trailers.is_none()
    }

    /// What is compressed, to look at it.
    pub(crate) fn plain(&self) -> &S {
        &self.source
    }

    /// What is compressed.
    pub(crate) fn source(&mut self) -> &mut S {
        &mut self.source
    }

    /// The next bytes, or the trailers; `None` at the end.
    ///
    /// # Errors
    /// Those of the source, and of the codec.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, S::Error>> {
        loop {
            if let Some(working) = &mut self.working {
                let (codec, output) = ready!(working.as_mut().poll(cx))?;
                self.working = None;
                self.codec = Some(codec);
                if self.step != Step::Encode {
                    self.held = 0;
                }
                self.finished = self.step == Step::Finish;
                if !output.is_empty() {
                    return Poll::Ready(Ok(Some(Frame::data(output))));
                }
            }
            if self.finished {
                return Poll::Ready(Ok(self.trailers.take()));
            }
            let step = if !self.input.is_empty() {
                Step::Encode
            } else if self.gathered.len() >= INLINE_LEN_MAX
                || (self.source_ended && !self.gathered.is_empty())
            {
                self.input = self.gathered.split().freeze();
                Step::Encode
            } else if self.source_ended {
                Step::Finish
            } else {
                match self.source.poll_next(cx)? {
                    Poll::Ready(Some(frame)) => {
                        match frame.into_data() {
                            Ok(data) if self.gathered.is_empty() && data.len() >= INLINE_LEN_MAX => {
                                self.input = data;
                            }
                            Ok(data) => self.gathered.extend_from_slice(&data),
                            Err(trailers) => (self.trailers, self.source_ended) = (Some(trailers), true),
                        }
                        continue;
                    }
                    Poll::Ready(None) => {
                        self.source_ended = true;
                        continue;
                    }
                    Poll::Pending if !self.gathered.is_empty() => {
                        self.input = self.gathered.split().freeze();
                        Step::Encode
                    }
                    Poll::Pending if self.held > 0 => Step::Flush,
                    Poll::Pending => return Poll::Pending,
                }
            };
            let input = self.input.split_to(self.input.len().min(SLICE_LEN));
            let Some(codec) = self.codec.take() else { return Poll::Ready(Ok(None)) };
            self.step = step;
            self.held += input.len();
            self.working = Some(Box::pin(work(codec, input, step, self.held)));
        }
    }
}

async fn work(codec: Codec, input: Bytes, step: Step, held: usize) -> io::Result<(Codec, Bytes)> {
    if held <= INLINE_LEN_MAX && step != Step::Finish {
        return run(codec, &input, step);
    }
    let _permit = THREADS.acquire().await.map_err(io::Error::other)?;
    spawn_blocking(move || run(codec, &input, step)).await.map_err(io::Error::other)?
}

/// Takes one step with a codec; blocks as long as that takes.
fn run(mut codec: Codec, input: &[u8], step: Step) -> io::Result<(Codec, Bytes)> {
    let mut input = PartialBuffer::new(input);
    let mut output = BytesMut::new();
    loop {
        let begins = output.len();
        output.resize(begins + OUTPUT_LEN, 0);
        let mut buffer = WriteBuffer::new_initialized(&mut output[begins..]);
        let done = match step {
            Step::Encode => {
                codec.encode(&mut input, &mut buffer)?;
                input.unwritten().is_empty()
            }
            Step::Flush => codec.flush(&mut buffer)?,
            Step::Finish => codec.finish(&mut buffer)?,
        };
        let written = buffer.written_len();
        output.truncate(begins + written);
        if done {
            return Ok((codec, output.freeze()));
        }
        if written == 0 && step != Step::Encode {
            return Err(io::Error::other("the codec makes no progress"));
        }
    }
}

impl<S> fmt::Debug for CodedBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodedBody").field("finished", &self.finished).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use super::*;

    /// Says on which thread it is used, and with how much at once.
    #[derive(Debug)]
    struct Noted(std::sync::mpsc::Sender<(ThreadId, usize)>, usize);

    impl EncodeV2 for Noted {
        fn encode(&mut self, input: &mut PartialBuffer<&[u8]>, _: &mut WriteBuffer<'_>) -> io::Result<()> {
            self.1 += input.unwritten().len();
            input.advance(input.unwritten().len());
            let _ = self.0.send((thread::current().id(), self.1));
            Ok(())
        }

        fn flush(&mut self, _: &mut WriteBuffer<'_>) -> io::Result<bool> {
            let _ = self.0.send((thread::current().id(), std::mem::take(&mut self.1)));
            Ok(true)
        }

        fn finish(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
            self.flush(output)
        }
    }

    /// Pieces; `None`: there is nothing at hand for a moment.
    struct Pieces(VecDeque<Option<usize>>);

    impl Source for Pieces {
        type Error = io::Error;

        fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
            match self.0.pop_front() {
                Some(Some(len)) => Poll::Ready(Ok(Some(Frame::data(vec![0; len].into())))),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(Ok(None)),
            }
        }
    }

    #[tokio::test]
    async fn a_worker_never_compresses_more_than_a_few_bytes_at_once() {
        let (notes, noted) = std::sync::mpsc::channel();
        let codec: Codec = Box::new(Noted(notes, 0));
        static ROOM: Semaphore = Semaphore::const_new(1); // the other test takes all of the usual one
        let reserved = Reserved { codec, memory: ROOM.acquire().await.unwrap() };
        let small = std::iter::repeat_n(Some(100), 3000);
        let pause = [None, None];
        let paused =
            [Some(4096), None, None, Some(100), Some(100), None, None, Some(5000), None, Some(300_000)];
        let mut body = CodedBody::new(reserved, Pieces(small.chain(pause).chain(paused).collect()));
        let all = async { while std::future::poll_fn(|cx| body.poll_next(cx)).await.unwrap().is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        drop(body);
        let worker = thread::current().id();
        let mut steps = [0, 0];
        for (thread, held) in noted {
            assert!(thread != worker || held <= INLINE_LEN_MAX, "{held} bytes on the worker");
            steps[usize::from(thread == worker)] += 1;
        }
        assert!((70..200).contains(&steps[0]), "{steps:?}: small pieces go to a thread together");
        assert!(steps[1] > 3, "{steps:?}: what is little stays");
    }

    #[test]
    fn codecs_have_so_much_memory_and_no_more() {
        let mut codecs: Vec<_> = std::iter::from_fn(|| Reserved::new(Coding::Zstd)).collect();
        assert_eq!(codecs.len(), MEMORY_KIB / ZSTD_KIB as usize);
        assert!(Reserved::new(Coding::Gzip).is_none());
        codecs.pop();
        assert!(Reserved::new(Coding::Gzip).is_some());
    }
}
