//! Waking a thread that sleeps in its ring.
//!
//! Place in the flow: other cores and the signal thread wake a core after they put something into its inbox.
//!
//! The protocol, which loses no wake-up: the sleeper announces its sleep, then looks at its inbox once more, then
//! sleeps; the waker puts into the inbox first, then looks for the announcement. Both orders are sequentially
//! consistent, so at least one of the two sees the other. A busy sleeper costs the waker one load, no system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{fence, AtomicBool, Ordering};
use std::sync::Arc;

#[derive(Debug)]
struct Shared {
    event: OwnedFd,
    asleep: AtomicBool,
}

/// The sleeping side; one per thread.
#[derive(Debug)]
pub struct Sleeper {
    shared: Arc<Shared>,
}

/// The waking side; as many as there are threads that may wake.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Sleeper {
    /// A sleeper whose event the ring will watch.
    ///
    /// # Errors
    /// No file descriptor was left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned a fresh descriptor that nothing else owns.
        let event = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { shared: Arc::new(Shared { event, asleep: AtomicBool::new(false) }) })
    }

    /// A handle for another thread.
    pub fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }

    /// Announces the sleep. The caller must look at everything that a waker may have changed after this and before it
    /// really sleeps, and must call [`Sleeper::awake`] either way.
    pub fn announce(&self) {
        self.shared.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back.
    pub fn awake(&self) {
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// The event's descriptor, for the ring to watch.
    pub fn descriptor(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

impl Waker {
    /// Wakes the thread if it sleeps. To be called after what it should see was published.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) && self.shared.asleep.swap(false, Ordering::SeqCst) {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: the descriptor is open as long as `shared` lives, and the buffer holds eight bytes.
            let written = unsafe { libc::write(self.shared.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            // The only other outcome is EAGAIN at a counter of 2^64 - 2, after which the event is readable anyway.
            debug_assert!(written == 8 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock);
        }
    }
}
