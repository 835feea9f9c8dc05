//! The three wires, each as little as a load generator needs: GET, SET and the question for the shard map out, their
//! replies in.
//!
//! Place in the flow: the sending end before a server's step 1, the receiving end after its step 9.
//!
//! All GETs of a run differ only in id and key, all SETs only in id, key and value, and all these have one length. So a
//! request is encoded once, and then copied and overwritten in three places:
//!
//! ```text
//! template   head | id | ... | prefix 000000000000 | ... | value    value last; others: no id, CR LF after the value
//! request    head | 17 | ... | prefix 000000012345 | ... | value
//! ```

pub mod cluster;
pub mod memcached;
pub mod native;
pub mod resp;

use std::ops::Range;

use eyot_protocol::request::RequestOptions;

use crate::args::Protocol;
use crate::workload::{write_digits, KeyForm, DIGITS};

/// What a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A write was stored.
    Stored,
    /// A read found this: the value's bytes, over the native protocol the encoded TLV value.
    Value(&'a [u8]),
    /// A read found nothing.
    Missing,
    /// The request failed.
    Error {
        /// The stable name of the error, for counting.
        code: &'a str,
        /// The server's words.
        message: &'a str,
    },
}

/// Bytes that cannot be a reply. The connection cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server sent what is no reply: {0}")]
pub struct WireError(pub String);

/// One encoded request, to be copied.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    id_at: Option<usize>,
    digits_at: usize,
    /// Where the value's payload is; empty for a GET.
    value: Range<usize>,
}

impl Template {
    /// `bytes` hold key 0 of `prefix`, and the value's payload before the last `trailer_bytes`.
    fn new(bytes: Vec<u8>, prefix: &str, id_at: Option<usize>, value_bytes: usize, trailer_bytes: usize) -> Self {
        let key = KeyForm::new(prefix).key(0).to_vec();
        let value_end = bytes.len() - trailer_bytes;
        let value = value_end - value_bytes..value_end;
        // From behind: what precedes the key is short and fixed, but a prefix may hold anything.
        let key_at = bytes[..value.start].windows(key.len()).rposition(|window| window == key);
        let digits_at = key_at.expect("an encoded request holds its key") + key.len() - DIGITS;
        Self { bytes, id_at, digits_at, value }
    }

    /// Appends the request; returns where its value's payload stands.
    #[inline]
    fn put(&self, out: &mut Vec<u8>, id: u32, key: u64) -> Range<usize> {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let request = &mut out[start..];
        if let Some(id_at) = self.id_at {
            request[id_at..id_at + 4].copy_from_slice(&id.to_le_bytes());
        }
        let digits = request[self.digits_at..].first_chunk_mut::<DIGITS>().expect("inside the request");
        write_digits(digits, key);
        start + self.value.start..start + self.value.end
    }
}

/// Encodes the requests of one run.
#[derive(Debug)]
pub struct Encoder {
    get: Template,
    set: Template,
}

impl Encoder {
    /// For requests on keys of `prefix` that write `value`, to last for `ttl_ms` where that is said; `options`
    /// (acknowledgement) go with native writes.
    pub fn new(protocol: Protocol, prefix: &str, value: &[u8], options: &RequestOptions, ttl_ms: Option<u64>) -> Self {
        let key = KeyForm::new(prefix).key(0).to_vec();
        match protocol {
            Protocol::Native => {
                let id_at = Some(native::ID_AT);
                Self {
                    get: Template::new(native::get(&key), prefix, id_at, 0, 0),
                    set: {
                        let set = native::set(&key, value, options, ttl_ms);
                        let trailer_bytes = set.len() - native::set(&key, value, options, None).len();
                        Template::new(set, prefix, id_at, value.len(), trailer_bytes)
                    },
                }
            }
            Protocol::Resp => Self {
                get: Template::new(resp::get(&key), prefix, None, 0, 0),
                set: {
                    let set = resp::set(&key, value, ttl_ms);
                    let expiry_bytes = set.len() - resp::set(&key, value, None).len();
                    Template::new(set, prefix, None, value.len(), resp::LINE_END.len() + expiry_bytes)
                },
            },
            Protocol::Memcached => Self {
                get: Template::new(memcached::get(&key), prefix, None, 0, 0),
                set: Template::new(memcached::set(&key, value), prefix, None, value.len(), resp::LINE_END.len()),
            },
        }
    }

    /// Appends a GET.
    #[inline]
    pub fn get(&self, out: &mut Vec<u8>, id: u32, key: u64) {
        self.get.put(out, id, key);
    }

    /// Appends a SET; returns where its value's payload stands in `out`, to be overwritten at will.
    #[inline]
    pub fn set(&self, out: &mut Vec<u8>, id: u32, key: u64) -> Range<usize> {
        self.set.put(out, id, key)
    }
}

#[cfg(test)]
mod tests {
    use eyot_protocol::native::{decode_request, split_frame, Split};
    use eyot_protocol::request::{AckLevel, Request};
    use eyot_protocol::tlv::{Decoder, ValueRef};

    use super::*;

    #[test]
    fn native_requests_are_what_the_protocol_crate_decodes() {
        let options = RequestOptions { ack: AckLevel::Fsync, ..RequestOptions::default() };
        let encoder = Encoder::new(Protocol::Native, "key:", &[b'v'; 200], &options, None);
        let mut out = Vec::new();
        encoder.get(&mut out, 7, 42);
        let value_at = encoder.set(&mut out, 0xFFFF_FFFF, 999_999_999_999);
        out[value_at][..3].copy_from_slice(b"new");
        let Ok(Split::Frame { frame, consumed }) = split_frame(&out, 1 << 20) else { panic!("no frame") };
        assert_eq!(frame.header.request_id, 7);
        let (request, _) = decode_request(&frame, 1 << 20).unwrap();
        assert_eq!(request, Request::Get { key: b"key:000000000042" });
        let Ok(Split::Frame { frame, consumed: second }) = split_frame(&out[consumed..], 1 << 20) else {
            panic!("no frame")
        };
        assert_eq!((frame.header.request_id, consumed + second), (0xFFFF_FFFF, out.len()));
        let (Request::Set(set), options) = decode_request(&frame, 1 << 20).unwrap() else { panic!("no SET") };
        assert_eq!((set.key, options.ack), (&b"key:999999999999"[..], AckLevel::Fsync));
        let mut expected = b"new".to_vec();
        expected.resize(200, b'v');
        assert_eq!(Decoder::new(set.value).value(), Ok(ValueRef::Bytes(&expected)));
    }

    #[test]
    fn values_with_a_lifetime_stand_where_they_are_overwritten() {
        let encoder = |protocol| Encoder::new(protocol, "key:", b"abc", &RequestOptions::default(), Some(1500));
        let mut out = Vec::new();
        let value_at = encoder(Protocol::Resp).set(&mut out, 0, 1);
        out[value_at].copy_from_slice(b"xyz");
        let expected = b"*5\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$3\r\nxyz\r\n$2\r\nPX\r\n$4\r\n1500\r\n";
        assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
        out.clear();
        let value_at = encoder(Protocol::Native).set(&mut out, 9, 1);
        out[value_at].copy_from_slice(b"xyz");
        let Ok(Split::Frame { frame, .. }) = split_frame(&out, 1 << 20) else { panic!("no frame") };
        let (Request::Set(set), _) = decode_request(&frame, 1 << 20).unwrap() else { panic!("no SET") };
        assert_eq!(Decoder::new(set.value).value(), Ok(ValueRef::Bytes(b"xyz")));
        assert_eq!(set.expiry, eyot_protocol::request::Expiry::AfterMs(1500));
    }

    #[test]
    fn resp_requests_are_arrays_of_bulk_strings() {
        // The prefix that looks like its own digits is the hard case for finding them.
        let encoder = Encoder::new(Protocol::Resp, "000000000000", b"abc", &RequestOptions::default(), None);
        let mut out = Vec::new();
        encoder.get(&mut out, 0, 42);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$24\r\n000000000000000000000042\r\n");
        out.clear();
        let value_at = encoder.set(&mut out, 0, 1);
        out[value_at].copy_from_slice(b"xyz");
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$24\r\n000000000000000000000001\r\n$3\r\nxyz\r\n");
    }

    #[test]
    fn memcached_requests_are_lines_and_a_value() {
        let encoder = Encoder::new(Protocol::Memcached, "mg ", b"abc", &RequestOptions::default(), None);
        let mut out = Vec::new();
        encoder.get(&mut out, 0, 42);
        assert_eq!(out, b"mg mg 000000000042 v\r\n");
        out.clear();
        let value_at = encoder.set(&mut out, 0, 1);
        out[value_at].copy_from_slice(b"xyz");
        assert_eq!(out, b"set mg 000000000001 0 0 3\r\nxyz\r\n");
    }
}
