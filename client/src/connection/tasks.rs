//! The two tasks of a connection: one writes what callers queued, one hands replies to their callers.
//!
//! Place in the flow: the client's end of the socket.
//!
//! Invariants:
//! - The writer writes everything that is queued with one write, as long as the system takes it.
//! - The reader's memory grows with the bytes that arrived, never with a length that was only announced.
//! - Whichever task ends first closes the state, so no request waits for a reply that cannot come.

use std::sync::Arc;

use eyot_protocol::native::reply::REPLY_FLAG_ERROR;
use eyot_protocol::native::{decode_reply, split_frame, Frame, FrameHeader, Split, REPLY_BIT};
use eyot_protocol::request::Operation;
use eyot_protocol::response::Response;
use eyot_protocol::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::call::Reply;
use super::state::{Cause, Pending};
use super::Shared;

/// At least this much room for each read (64 KiB): many small replies come with one system call.
const READ_ROOM_BYTES: usize = 64 * 1024;
/// A receive buffer that grew beyond this for a large reply is given back when it is empty (1 MiB).
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// Writes until the connection is closed or breaks.
pub(super) async fn write(shared: Arc<Shared>, mut socket: OwnedWriteHalf) {
    let mut spare = Vec::new();
    loop {
        let taken = {
            let mut state = shared.state();
            if state.closed.is_some() {
                return;
            }
            state.take(std::mem::take(&mut spare), Instant::now())
        };
        let Some(taken) = taken else {
            // A notification that came between the lock and here is kept by `Notify`.
            shared.wake_writer.notified().await;
            continue;
        };
        if let Err(error) = socket.write_all(&taken.bytes).await {
            shared.state().close(Cause::Broken(format!("sending failed: {error}")), &shared.address);
            return;
        }
        spare = taken.bytes;
    }
}

/// Reads until the peer closes the connection, it breaks, or the peer breaks the protocol.
pub(super) async fn read(shared: Arc<Shared>, mut socket: OwnedReadHalf, max_reply_bytes: usize) {
    let cause = read_replies(&shared, &mut socket, max_reply_bytes).await;
    shared.state().close(cause, &shared.address);
    // The writer ends and drops its half, which closes the socket.
    shared.wake_writer.notify_one();
}

async fn read_replies(shared: &Shared, socket: &mut OwnedReadHalf, max_reply_bytes: usize) -> Cause {
    let mut buffer: Vec<u8> = Vec::with_capacity(READ_ROOM_BYTES);
    loop {
        // `Vec` doubles, so a long reply is copied a constant number of times on average.
        buffer.reserve(READ_ROOM_BYTES);
        match socket.read_buf(&mut buffer).await {
            Ok(0) => return ended(buffer.len()),
            Ok(_) => {}
            Err(error) => return Cause::Broken(format!("receiving failed: {error}")),
        }
        shared.state().heard_at = Some(Instant::now());
        match hand_over(shared, &buffer, max_reply_bytes) {
            Ok(consumed) => {
                buffer.drain(..consumed);
            }
            Err(cause) => return cause,
        }
        if buffer.is_empty() && buffer.capacity() > KEPT_BUFFER_BYTES {
            buffer = Vec::with_capacity(READ_ROOM_BYTES);
        }
    }
}

fn ended(bytes_left: usize) -> Cause {
    Cause::Broken(match bytes_left {
        0 => "the server closed the connection".to_owned(),
        bytes => format!("the server closed the connection within a reply, after {bytes} bytes of it"),
    })
}

/// Hands every whole reply in `bytes` to its caller; returns how many bytes they take.
fn hand_over(shared: &Shared, bytes: &[u8], max_reply_bytes: usize) -> Result<usize, Cause> {
    let mut consumed = 0;
    loop {
        match split_frame(&bytes[consumed..], max_reply_bytes) {
            Ok(Split::Frame { frame, consumed: frame_bytes }) => {
                answer(shared, &frame)?;
                consumed += frame_bytes;
            }
            Ok(Split::Incomplete { .. }) => return Ok(consumed),
            Err(error) if error.code == ErrorCode::FrameTooLarge => {
                return Err(Cause::Malformed(format!(
                    "it announces a reply longer than the {max_reply_bytes} bytes that this client takes"
                )))
            }
            Err(error) => return Err(Cause::Malformed(error.message)),
        }
    }
}

fn answer(shared: &Shared, frame: &Frame<'_>) -> Result<(), Cause> {
    let FrameHeader { op, flags, request_id, .. } = frame.header;
    // Id 0 is never given to a request: the server speaks of the connection as a whole.
    if request_id == 0 && flags & REPLY_FLAG_ERROR != 0 {
        return Err(connection_error(frame));
    }
    let Some(pending) = shared.state().answered(request_id) else {
        return Err(Cause::Malformed(format!("a reply to request {request_id}, which was not sent")));
    };
    match decode(frame, &pending) {
        Ok(reply) => {
            // A caller that has given up does not listen.
            let _ = pending.reply.send(Ok(reply));
            Ok(())
        }
        Err(reason) => {
            let reason = format!("reply to request {request_id} (operation {op:#04x}): {reason}");
            let cause = Cause::Malformed(reason);
            pending.fail(&cause, &shared.address);
            Err(cause)
        }
    }
}

fn decode(frame: &Frame<'_>, pending: &Pending) -> Result<Reply, String> {
    let expected = pending.operation.code() | REPLY_BIT;
    if frame.header.op != expected {
        return Err(format!("it should answer {} ({expected:#04x})", pending.operation.name()));
    }
    decode_reply(frame, &pending.batch).map(Reply::from).map_err(|error| error.message)
}

/// The error by which a server gives up a whole connection. Its operation code may be any.
fn connection_error(frame: &Frame<'_>) -> Cause {
    let header = FrameHeader { op: Operation::Stats.code() | REPLY_BIT, ..frame.header };
    match decode_reply(&Frame { header, body: frame.body }, &[]) {
        Ok(Response::Error(error)) => Cause::Refused(error),
        Ok(_) => Cause::Malformed("a reply without a request, marked as an error, that is none".to_owned()),
        Err(error) => Cause::Malformed(error.message),
    }
}
