//! Every bound of the wire formats, with the reason for its size.
//!
//! Place in the flow: read by the codecs (steps 2 and 9) and by admission (step 3). A bound here is part of the
//! protocol: changing one is a change of `docs/PROTOCOL.md`.

/// Longest key, in bytes (64 KiB). Keys are hashed, compared and logged whole; a longer one is data, not a name.
pub const MAX_KEY_BYTES: usize = 64 * 1024;

/// Longest encoded value any configuration may allow (512 MiB): one value must fit one log write and one reply.
pub const MAX_VALUE_BYTES: usize = 512 * 1024 * 1024;

/// Longest encoded value by default (64 MiB).
pub const DEFAULT_MAX_VALUE_BYTES: usize = 64 * 1024 * 1024;

/// What a frame may hold beside its value: header, key, options. A frame limit is a value limit plus this.
pub const FRAME_OVERHEAD_BYTES: usize = MAX_KEY_BYTES + 4 * 1024;

/// Deepest nesting of lists and maps (the outermost counts as 1): bounds the decoder's stack.
pub const MAX_DEPTH: usize = 32;

/// Longest varint: 64 bits in groups of seven.
pub const MAX_VARINT_BYTES: usize = 10;

/// Most operations in one BATCH: bounds what one frame can make a core gather.
pub const MAX_BATCH_OPERATIONS: usize = 10_000;

/// Longest PING payload (it is sent back), so that a PING cannot be used to move bulk data.
pub const MAX_PING_BYTES: usize = 64 * 1024;

/// Most bytes that one request reads of a snapshot (1 MiB): the server holds them until they are sent, and a client
/// has several such requests under way.
pub const MAX_SNAPSHOT_READ_BYTES: usize = 1024 * 1024;

/// Longest password, in bytes: a longer one is a file that was given by mistake. Comparing takes the time of the
/// longest.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// Longest frame of a client that has not authenticated, where the server wants a password (16 KiB): a HELLO fits many
/// times, and nothing larger is worth keeping for somebody unknown.
pub const MAX_UNAUTHENTICATED_FRAME_BYTES: usize = 16 * 1024;

/// Most commands in one log entry: a command's position is the low 16 bits of a version.
pub const MAX_COMMANDS_PER_ENTRY: usize = 1 << 16;

/// Longest text of an error message on a wire; a longer one is cut at a character boundary.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 4 * 1024;
