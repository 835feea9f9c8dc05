//! Arguments for tests: a line of words, split as the protocol splits an inline request.

use eyot_protocol::resp::{split_request, ArgList, Args, RequestSpans, RespLimits, Split, Unfinished};

/// The words of a line, quoted as in a shell.
pub struct Words {
    line: Vec<u8>,
    list: ArgList,
    spans: RequestSpans,
}

impl Words {
    pub fn new(line: &str) -> Self {
        // A word before the others, as a command's name would stand there: a line may then begin with `*`.
        let line = format!("NAME {line}\r\n").into_bytes();
        let mut list = ArgList::default();
        let limits = RespLimits::new(1 << 20, 1 << 20);
        match split_request(&line, &limits, &mut list, &mut Unfinished::default()) {
            Ok(Split::Request { request, .. }) => Self { line, list, spans: request },
            other => panic!("no request: {other:?}"),
        }
    }

    pub fn args(&self) -> Args<'_> {
        self.list.of(self.spans, &self.line).from(1)
    }
}
