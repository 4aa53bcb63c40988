//! The queue of the log: whole lines on their way to stderr, bounded in bytes.
//!
//! In: lines, from any thread, which never wait for the reader of the log. Out: the same lines, in
//! order, written by a thread of its own. When the reader is slower than the lines come and the queue is
//! full, new lines are lost; they are counted, and the log says how many as soon as it can.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Bytes that may wait, those that are being written included.
pub(super) const LEN_MAX: usize = 8 * 1024 * 1024;
/// Lines are collected in chunks of this length. A longer line has one of its own.
const CHUNK_LEN: usize = 64 * 1024;
/// What a pipe takes without mixing it with what another process writes (`PIPE_BUF`, pipe(7)): at a
/// takeover two processes share one stderr.
pub(super) const PIPE_LEN: usize = 4096;
/// For a stderr that another process has set to non-blocking.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Once it has written, how long the writer collects lines before it writes again. Waking it costs more than a line.
const COLLECT_TIME: Duration = Duration::from_millis(10);
/// How long the end of the process waits for a reader that is slow.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Where lines are put. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Shared>);

/// When dropped, what waits is written, unless that takes longer than [`CLOSE_TIME`].
#[derive(Debug)]
pub struct Guard(Queue);

#[derive(Debug)]
struct Shared {
    len_max: usize,
    state: Mutex<State>,
    /// The writer has something to do.
    filled: Condvar,
    /// The writer has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    /// An empty chunk to be used again.
    spare: Option<Vec<u8>>,
    /// Bytes in `chunks` and in the writer's hands.
    len: usize,
    /// Lines lost so far, and how many of them have been logged as lost.
    lost: u64,
    told: u64,
    /// Bytes written since that was logged last.
    since: usize,
    writer: Option<ThreadId>,
    is_waiting: bool,
    is_closing: bool,
    has_ended: bool,
}

impl Queue {
    /// Starts the writer, which writes `write_len` bytes at once, or one line that is longer. `tell` is called on its
    /// thread with a number of lines that were lost, and may put a line about it into the queue.
    ///
    /// # Errors
    /// If the operating system has no thread for it.
    pub(super) fn start(
        len_max: usize,
        write_len: usize,
        out: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<(Self, Guard)> {
        let queue = Self(Arc::new(Shared {
            len_max,
            state: Mutex::default(),
            filled: Condvar::new(),
            ended: Condvar::new(),
        }));
        let writer = queue.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_out(out, write_len, tell))?;
        Ok((queue.clone(), Guard(queue)))
    }

    /// Puts a line at the end, which consists of `parts`. If there is no room for it, it is lost.
    pub(super) fn push(&self, parts: [&[u8]; 2]) {
        self.add(parts, 1);
    }

    fn add(&self, parts: [&[u8]; 2], count: u64) {
        let len = parts[0].len() + parts[1].len();
        let mut state = self.0.lock();
        // There is always room for what the writer itself has to say.
        if state.len + len > self.0.len_max && state.writer != Some(thread::current().id()) {
            state.lost += count;
            return;
        }
        state.len += len;
        let has_room = state.chunks.back().is_some_and(|last| last.len() + len <= CHUNK_LEN);
        if !has_room {
            let chunk = state.spare.take().unwrap_or_else(|| Vec::with_capacity(CHUNK_LEN.max(len)));
            state.chunks.push_back(chunk);
        }
        if let Some(chunk) = state.chunks.back_mut() {
            parts.iter().for_each(|part| chunk.extend_from_slice(part));
        }
        let is_waiting = std::mem::take(&mut state.is_waiting);
        drop(state);
        if is_waiting {
            self.0.filled.notify_one();
        }
    }

    /// Puts whole lines at the end, `count` of them. If there is no room for all, they are lost.
    pub(super) fn push_lines(&self, lines: &[u8], count: u64) {
        self.add([b"", lines], count);
    }

    /// It is the same one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Lines lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    fn write_out(self, mut out: impl Write, write_len: usize, tell: impl Fn(u64)) {
        self.0.lock().writer = Some(thread::current().id());
        let (mut is_torn, mut has_written) = (false, false);
        loop {
            let mut state = self.0.lock();
            // If lines are lost all the time, that is logged once for each time the queue was emptied.
            if state.lost > state.told && (state.chunks.is_empty() || state.since >= self.0.len_max) {
                let lost = state.lost - state.told;
                state.told = state.lost;
                state.since = 0;
                drop(state);
                tell(lost);
                continue;
            }
            let Some(mut chunk) = state.chunks.pop_front() else {
                if state.is_closing {
                    state.has_ended = true;
                    drop(state);
                    return self.0.ended.notify_all();
                }
                if std::mem::take(&mut has_written) {
                    drop(self.0.filled.wait_timeout(state, COLLECT_TIME)); // only the end wakes it
                    continue;
                }
                state.is_waiting = true;
                drop(self.0.filled.wait(state));
                continue;
            };
            drop(state);
            has_written = true;
            let failed = write_lines(&mut out, &chunk, write_len, &mut is_torn);
            let mut state = self.0.lock();
            state.len -= chunk.len();
            state.since = state.since.saturating_add(chunk.len());
            state.lost += failed;
            // On a full disk there is no line about each line that it has no room for.
            state.told += failed;
            if chunk.capacity() <= CHUNK_LEN {
                chunk.clear();
                state.spare = Some(chunk);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let deadline = Instant::now() + CLOSE_TIME;
        let mut state = shared.lock();
        state.is_closing = true;
        shared.filled.notify_one();
        while !state.has_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = shared.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Writes whole lines, several at once where they are short. Returns how many were not written.
/// `is_torn`: the last write has left the front of a line.
fn write_lines(out: &mut impl Write, mut lines: &[u8], write_len: usize, is_torn: &mut bool) -> u64 {
    let mut failed = 0;
    while !lines.is_empty() {
        let front = &lines[..lines.len().min(write_len)];
        let end = match front.iter().rposition(|&b| b == b'\n') {
            Some(last) => last + 1,
            None => lines.iter().position(|&b| b == b'\n').map_or(lines.len(), |first| first + 1),
        };
        let (piece, rest) = lines.split_at(end);
        lines = rest;
        if *is_torn && write_whole(out, b"\n").is_ok() {
            *is_torn = false;
        }
        if let Err(written) = write_whole(out, piece) {
            *is_torn |= written > 0 && piece[written - 1] != b'\n';
            failed += piece[written..].iter().filter(|&&b| b == b'\n').count() as u64;
        }
    }
    failed
}

/// Writes all of `bytes`, or says how many it has written.
fn write_whole(out: &mut impl Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says when it is asked to write, and then waits until it may.
    struct Gate {
        asked: mpsc::Sender<()>,
        may: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(());
            let _ = self.may.recv(); // an error: the gate stays open
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_loses_lines_whose_number_is_logged() {
        let (asked, was_asked) = mpsc::channel();
        let (open, may) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let gate = Gate { asked, may, written: written.clone() };
        let (tell, told) = mpsc::channel::<u64>();
        let say = Arc::new(Mutex::new(None::<Queue>));
        let says = say.clone();
        let (queue, guard) = Queue::start(1000, PIPE_LEN, gate, move |lost| {
            let _ = tell.send(lost);
            if let Some(queue) = &*says.lock().unwrap() {
                queue.push([b"", format!("lost {lost}\n").as_bytes()]);
            }
        })
        .unwrap();
        *say.lock().unwrap() = Some(queue.clone());
        let line = [b'x'; 99];
        queue.push([b"<6>", b"first\n"]);
        was_asked.recv().unwrap(); // it is in the writer's hands, and counts
        for _ in 0..20 {
            queue.push([&line, b"\n"]);
        }
        assert_eq!(queue.lost(), 11);
        assert_eq!(queue.0.lock().len, 909);
        assert!(told.try_recv().is_err(), "the loss can't be logged yet");
        drop(open);
        assert_eq!(told.recv().unwrap(), 11);
        queue.push([b"", b"after\n"]);
        drop(guard);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), ("<6>first", 12), "{text}");
        assert!(lines[10..].contains(&"lost 11") && lines[10..].contains(&"after"), "{text}");
        assert_eq!(queue.0.lock().len, 0);
    }

    /// Has room for some bytes.
    struct Disk(Vec<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.1);
            self.1 -= n;
            self.0.extend_from_slice(&bytes[..n]);
            if n == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(n) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_stay_whole_in_a_pipe_and_behind_a_full_disk() {
        let long = [&[b'l'; 5000][..], b"\n"].concat();
        let lines = [&b"a\n".repeat(2049), &long, &b"b\n"[..]].concat();
        #[derive(Default)]
        struct Pipe(Vec<usize>);
        impl Write for Pipe {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                assert!(bytes.ends_with(b"\n"));
                self.0.push(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut pipe, mut is_torn) = (Pipe::default(), false);
        assert_eq!(write_lines(&mut pipe, &lines, PIPE_LEN, &mut is_torn), 0);
        assert_eq!(pipe.0, [4096, 2, 5001, 2]);

        let mut disk = Disk(Vec::new(), 7);
        assert_eq!(write_lines(&mut disk, b"first\nsecond\nthird\n", PIPE_LEN, &mut is_torn), 2);
        assert!(is_torn);
        disk.1 = 100;
        assert_eq!(write_lines(&mut disk, b"fourth\n", PIPE_LEN, &mut is_torn), 0);
        assert_eq!(disk.0, b"first\ns\nfourth\n");
    }
}
