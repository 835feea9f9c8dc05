//! Clients that have yet to say who they are, where the node has a password.
//!
//! Place in the flow: steps 2 (decode) and 3 (admit), on the core that holds the connection, for either wire.
//!
//! A connection is locked from the moment it is accepted. What a locked one sends is read here, by low limits and
//! without the ways that make large values fast; the code that reads everybody else's requests knows nothing of it. The
//! right password unlocks, RESET locks again: both end the batch, and what stands behind is read anew, on the side
//! where it belongs.
//!
//! Invariants:
//! - Nothing of a locked connection reaches a key, another core or a log of the node but a count.
//! - A locked connection costs one unfinished request of 64 KiB, [`UNAUTHENTICATED_OUTPUT_BYTES_MAX`] of replies, and a
//!   place for as long as a handshake may take (`timeouts`).
//! - What was said as a password is in no reply, line or figure.

use eyot_protocol::credentials::Credentials;
use eyot_protocol::limits::MAX_UNAUTHENTICATED_FRAME_BYTES;
use eyot_protocol::native::{split_frame, Frame, Split as FrameSplit, PROTOCOL_VERSION};
use eyot_protocol::request::Operation;
use eyot_protocol::resp::{parse_unauthenticated, split_request, Args, RespError, RespLimits, Split, Unfinished};
use eyot_protocol::ErrorCode;

use super::Work;
use crate::net::session::Session;
use crate::security::password::{judge, Verdict};

/// Replies that a client may leave unread before it has authenticated: some hundred refusals, for nobody.
pub const UNAUTHENTICATED_OUTPUT_BYTES_MAX: usize = 64 * 1024;

const RESP_LIMITS: RespLimits = RespLimits::unauthenticated();
/// What AUTH with a password alone is answered where there are no passwords.
const NO_PASSWORD: RespError = RespError::fixed(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration \
     is correct?",
);
const WRONG_PASSWORD: RespError = RespError::fixed("WRONGPASS invalid username-password pair or user is disabled.");
/// What HELLO without AUTH is answered where there is one.
pub(super) const HELLO_NOT_AUTHENTICATED: RespError = RespError::fixed(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option \
     can be used to authenticate the client and select the RESP protocol version at the same time",
);
const NATIVE_NOT_AUTHENTICATED: &str = "this server wants a password; send it with HELLO. Not applied";

impl Work {
    /// Takes the whole requests of `input` of the locked connection `key`, until it is unlocked or full. Returns how
    /// many bytes were consumed.
    #[cold]
    #[inline(never)]
    pub(super) fn parse_locked(&mut self, key: u32, input: &[u8]) -> usize {
        let mut consumed = 0;
        while consumed < input.len() {
            let rest = &input[consumed..];
            let taken = match self.connections.get_mut(key).session {
                Session::Native => self.locked_native(key, rest),
                Session::Resp(_) => self.locked_resp(key, rest),
            };
            match taken {
                Some(bytes) => consumed += bytes,
                None => return consumed,
            }
            if !self.stays_locked(key) {
                break;
            }
        }
        consumed
    }

    /// Whether more of the locked connection `key` is looked at now.
    fn stays_locked(&mut self, key: u32) -> bool {
        if !self.connections.get_mut(key).is_locked() {
            self.change_sides(key);
            return false;
        }
        if self.connections.get_mut(key).owed_bytes() > UNAUTHENTICATED_OUTPUT_BYTES_MAX {
            self.connections.finish_and_linger(key);
            return false;
        }
        !self.pauses(key) && !self.must_yield(key)
    }

    /// Has what connection `key` has sent beyond this request read anew, since who it is has changed.
    fn change_sides(&mut self, key: u32) {
        self.connections.get_mut(key).yields = true;
        self.connections.review(key);
    }

    /// Locks connection `key` again, if the node has a password.
    pub(super) fn lock(&mut self, key: u32) {
        if self.shared.settings.password.is_some() {
            self.connections.get_mut(key).locked_since_us = Some(self.clock.monotonic_us());
            self.change_sides(key);
        }
    }

    /// Takes one request off `input`; `None`: it is not all there.
    fn locked_resp(&mut self, key: u32, input: &[u8]) -> Option<usize> {
        let mut arguments = std::mem::take(&mut self.arguments);
        arguments.clear();
        let taken = match split_request(input, &RESP_LIMITS, &mut arguments, &mut Unfinished::default()) {
            Ok(Split::Request { consumed, request }) => {
                self.locked_resp_request(key, arguments.of(request, input));
                Some(consumed)
            }
            Ok(Split::Empty { consumed }) => Some(consumed),
            Ok(Split::Incomplete { .. }) => None,
            Err(error) => {
                self.fail_resp_stream(key, &error);
                Some(input.len())
            }
        };
        arguments.clear();
        self.arguments = arguments;
        taken
    }

    fn locked_resp_request(&mut self, key: u32, args: Args<'_>) {
        match parse_unauthenticated(args) {
            Ok(parsed) => {
                self.connections.get_mut(key).session.resp().last_command = Some(parsed.id);
                self.metrics.commands.called(parsed.id as usize);
                self.admin_request(key, parsed.id, &parsed.request);
            }
            Err(error) => self.refuse_request(key, &error),
        }
    }

    /// As [`Work::locked_resp`], of the native wire.
    fn locked_native(&mut self, key: u32, input: &[u8]) -> Option<usize> {
        match split_frame(input, MAX_UNAUTHENTICATED_FRAME_BYTES) {
            Ok(FrameSplit::Frame { frame, consumed }) => {
                self.locked_native_request(key, &frame);
                Some(consumed)
            }
            Ok(FrameSplit::Incomplete { .. }) => None,
            Err(error) if error.code == ErrorCode::FrameTooLarge => {
                let message = format!(
                    "a frame before authentication has at most {MAX_UNAUTHENTICATED_FRAME_BYTES} bytes; this server \
                     wants a password, send it with HELLO"
                );
                self.fail_stream(key, 0, 0, error.code, &message);
                Some(input.len())
            }
            Err(error) => {
                self.fail_stream(key, 0, 0, error.code, &error.message);
                Some(input.len())
            }
        }
    }

    fn locked_native_request(&mut self, key: u32, frame: &Frame<'_>) {
        let header = frame.header;
        let operation = Operation::from_code(header.op).filter(|_| header.version == PROTOCOL_VERSION);
        match operation {
            // Its form is judged by the decoder, and so is what is no operation at all.
            Some(Operation::Hello) | None => self.native_request(key, frame),
            Some(_) => {
                self.metrics.errors += 1;
                let code = ErrorCode::AuthenticationRequired;
                self.connections.say_error(key, header.op, header.request_id, code, NATIVE_NOT_AUTHENTICATED);
            }
        }
    }

    /// Believes the client of connection `key` to be who it says, or not.
    fn authenticate(&mut self, key: u32, said: &Credentials<'_>) -> Verdict {
        let verdict = judge(self.shared.settings.password.as_ref(), said);
        let connection = self.connections.get_mut(key);
        match verdict {
            Verdict::Granted => connection.locked_since_us = None,
            Verdict::NoPasswordIsSet => {}
            Verdict::Refused => {
                self.metrics.counters.failed_authentications += 1;
                if let Some(attempts) = self.failed_attempts.note(self.clock.monotonic_us()) {
                    // The address alone: what was said as a name may be a password.
                    let client = connection.socket.peer_addr().map_or(String::new(), |address| address.to_string());
                    tracing::warn!(core = self.core, client, attempts, "authentication failed");
                }
            }
        }
        verdict
    }

    /// AUTH, and HELLO with AUTH.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) fn authenticate_resp(&mut self, key: u32, said: &Credentials<'_>) -> Result<(), RespError> {
        match self.authenticate(key, said) {
            Verdict::Granted => Ok(()),
            Verdict::Refused => Err(WRONG_PASSWORD),
            // Any password is right, but whoever says it alone is told that there is none.
            Verdict::NoPasswordIsSet if said.user.is_some() => Ok(()),
            Verdict::NoPasswordIsSet => Err(NO_PASSWORD),
        }
    }

    /// What a native HELLO says of its client.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) fn authenticate_native(
        &mut self,
        key: u32,
        said: Option<&Credentials<'_>>,
    ) -> Result<(), (ErrorCode, &'static str)> {
        let Some(said) = said else {
            if self.connections.get_mut(key).is_locked() {
                return Err((ErrorCode::AuthenticationRequired, NATIVE_NOT_AUTHENTICATED));
            }
            return Ok(());
        };
        match self.authenticate(key, said) {
            Verdict::Granted => Ok(()),
            Verdict::Refused => Err((ErrorCode::AuthenticationFailed, "the user or the password is not right")),
            Verdict::NoPasswordIsSet => Err((
                ErrorCode::UnsupportedFeature,
                "a password was sent, but this server has none; connect without it, or start it with one",
            )),
        }
    }
}
