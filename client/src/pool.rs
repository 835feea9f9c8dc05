//! The connections to one address: opened on demand, shared by all callers, replaced when they break.
//!
//! Place in the flow: between routing a call and sending it.
//!
//! Invariants:
//! - At most `size` connections, and at most one attempt to connect per place and pause, however many callers wait:
//!   callers that come within the pause get the last attempt's error.
//! - A caller never waits here longer than its deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{timeout_at, Instant};

use crate::connection::{Connection, Deadline};
use crate::error::Error;
use crate::options::Options;

/// One place for a connection.
#[derive(Default)]
struct Place {
    connection: Option<Arc<Connection>>,
    failed: Option<Failed>,
}

/// The last attempts to connect did not succeed.
struct Failed {
    /// In a row.
    attempts: u32,
    error: Error,
    /// Nobody connects before.
    again_at: Instant,
}

/// The connections to one address.
pub(crate) struct Pool {
    pub(crate) address: Arc<str>,
    places: Vec<Mutex<Place>>,
    next: AtomicUsize,
    /// The longest pause between attempts to connect.
    max_pause: Duration,
}

impl Pool {
    pub(crate) fn new(address: Arc<str>, size: usize, max_pause: Duration) -> Self {
        let places = (0..size).map(|_| Mutex::default()).collect();
        Self { address, places, next: AtomicUsize::new(0), max_pause }
    }

    /// Puts an open connection into the first place, if that is free.
    pub(crate) fn adopt(&self, connection: &Arc<Connection>) {
        if let Ok(mut place) = self.places[0].try_lock() {
            place.connection.get_or_insert_with(|| Arc::clone(connection));
        }
    }

    /// A usable connection: each place's in turn, opened if need be. `None`: the deadline came first.
    pub(crate) async fn connection(
        &self,
        options: &Options,
        deadline: &Deadline,
    ) -> Option<Result<Arc<Connection>, Error>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.places.len();
        // Dropping the attempt at the deadline closes its socket; the next caller starts a new one.
        timeout_at(deadline.at, self.connection_at(turn, options)).await.ok()
    }

    async fn connection_at(&self, position: usize, options: &Options) -> Result<Arc<Connection>, Error> {
        let mut place = self.places[position].lock().await;
        if let Some(connection) = &place.connection {
            if connection.is_usable() {
                return Ok(Arc::clone(connection));
            }
            place.connection = None;
        }
        if let Some(failed) = &place.failed {
            if Instant::now() < failed.again_at {
                return Err(failed.error.clone());
            }
        }
        match Connection::open(&self.address, options).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *place = Place { connection: Some(Arc::clone(&connection)), failed: None };
                Ok(connection)
            }
            Err(error) => {
                let attempts = place.failed.as_ref().map_or(0, |failed| failed.attempts).saturating_add(1);
                let policy = crate::RetryPolicy { max_pause: self.max_pause, ..options.retry };
                // Shorter than the pause of a call after as many attempts, so that the call's next attempt is a real
                // one.
                let pause = policy.pause(attempts, rand::random()) / 2;
                place.failed = Some(Failed { attempts, error: error.clone(), again_at: Instant::now() + pause });
                Err(error)
            }
        }
    }
}
