//! Random commands over few keys, so that they meet: valid ones, borderline ones, and ones that must be refused.
//!
//! Invariant: a sequence is a function of its seed, and its replies do not depend on when it runs: expiries lie far
//! ahead or in the past; short ones have a test of their own.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::lines::{Line, Step};

/// Keys that any command may use.
const KEYS: [&[u8]; 11] =
    [b"a", b"b", b"c", b"k:1", b"k:2", b"k:3", b"", b"\x00\xff\r\n\x80", b"spaced key", b"{t}1", b"user:{t}2"];
/// Keys of one slot, for commands that move a value from one key to another.
const TAGGED: [&[u8]; 5] = [b"{t}1", b"user:{t}2", b"{t}", b"a{t}{u}", b"t"];
/// Texts that may or may not be numbers.
const NUMBERS: [&str; 33] = [
    "0",
    "1",
    "-1",
    "2",
    "10",
    "100",
    "-100",
    "7",
    "42",
    "+5",
    "007",
    "-0",
    " 5",
    "5 ",
    "",
    "abc",
    "1.5",
    "3.0e3",
    "1e2",
    "-2.5",
    "0.1",
    "0.2",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "4611686018427387904",
    "18446744073709551615",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1 2",
];
/// Indexes of ranges, beyond both ends of most values.
const INDEXES: [&str; 18] = [
    "0",
    "1",
    "2",
    "5",
    "-1",
    "-2",
    "-3",
    "-5",
    "10",
    "43",
    "44",
    "45",
    "-100",
    "100",
    "9223372036854775807",
    "-9223372036854775808",
    "abc",
    "1.0",
];
/// Where SETRANGE writes: near, at the end of what Redis allows, and nowhere.
const OFFSETS: [&str; 11] = ["0", "1", "2", "5", "17", "100", "1000", "-1", "536870912", "9223372036854775807", "x"];
/// Patterns of KEYS and SCAN.
const PATTERNS: [&str; 24] = [
    "*", "?", "a", "k:*", "k:[12]", "k:[^1]", "k:[1-3]", "k:[3-1]", "*t*", "\\*", "[a-c]", "[^a]", "", "*:?", "**",
    "*1", "{t}*", "[", "[a", "a[", "\\", "?:[!1]", "k:\\1", "*\u{0}*",
];
/// Words that stand where an option is looked for.
const OPTIONS: [&str; 22] = [
    "NX", "XX", "GET", "KEEPTTL", "EX", "PX", "EXAT", "PXAT", "PERSIST", "GT", "LT", "REPLACE", "DB", "MATCH", "COUNT",
    "TYPE", "ASYNC", "SYNC", "string", "bogus", "nx", "",
];
/// Far enough ahead that no test lives to see it: the year 2100, in seconds.
const FAR_FUTURE_S: i64 = 4_102_444_800;

/// The dice of one sequence.
pub struct Generator {
    rng: StdRng,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// `count` steps.
    pub fn steps(&mut self, count: usize) -> Vec<Step> {
        (0..count).map(|_| self.step()).collect()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.gen_range(0..100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(&mut self.rng).expect("something to choose from")
    }

    fn word(&mut self, from: &[&'static str]) -> &'static str {
        from.choose(&mut self.rng).expect("something to choose from")
    }

    fn text(&mut self, from: &[&'static str]) -> Vec<u8> {
        self.word(from).as_bytes().to_vec()
    }

    fn key(&mut self) -> Vec<u8> {
        if self.chance(1) {
            let length = self.rng.gen_range(100..600);
            return vec![b'L'; length];
        }
        self.pick(&KEYS).to_vec()
    }

    fn tagged(&mut self) -> Vec<u8> {
        self.pick(&TAGGED[..4]).to_vec()
    }

    fn keys(&mut self, max: usize) -> Vec<Vec<u8>> {
        let count = self.rng.gen_range(1..=max);
        (0..count).map(|_| self.key()).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.gen_range(0..100) {
            0..=39 => self.rng.gen_range(-20..200_i64).to_string().into_bytes(),
            40..=59 => self.text(&NUMBERS),
            60..=64 => Vec::new(),
            65..=79 => {
                let length = self.rng.gen_range(1..=60);
                (0..length).map(|_| self.rng.gen()).collect()
            }
            80..=96 => {
                let length = *self.pick(&[1, 3, 8, 20, 21, 43, 44, 45, 46, 63, 64, 65, 100, 127, 128, 255, 256, 900]);
                (0..length).map(|at| b'a' + (at % 26) as u8).collect()
            }
            97..=98 => {
                let length = self.rng.gen_range(1_000..20_000);
                vec![b'v'; length]
            }
            _ => {
                // Around the size from which a server may keep values elsewhere.
                let length = 65_536 + self.rng.gen_range(-2_i64..=2);
                vec![b'w'; length as usize]
            }
        }
    }

    fn integer(&mut self) -> Vec<u8> {
        if self.chance(70) {
            return self.rng.gen_range(-50..100_i64).to_string().into_bytes();
        }
        self.text(&NUMBERS)
    }

    fn float(&mut self) -> Vec<u8> {
        match self.rng.gen_range(0..3) {
            0 => format!("{}", f64::from(self.rng.gen_range(-2_000..2_000_i32)) / 8.0).into_bytes(),
            1 => format!("{}.{}", self.rng.gen_range(-99..99), self.rng.gen_range(0..1_000)).into_bytes(),
            _ => self.text(&NUMBERS),
        }
    }

    /// A time for `unit`: one of the words of SET's options. Now and then it is none.
    fn time(&mut self, unit: &str) -> Vec<u8> {
        /// The last is a time that a server can hold if it is an absolute one in milliseconds.
        const REFUSED: [&str; 8] =
            ["0", "-1", "abc", "", "1.5", "9223372036854775808", "-9223372036854775808", "9223372036854775807"];
        if self.chance(8) {
            return self.text(if unit == "PXAT" { &REFUSED[..7] } else { &REFUSED });
        }
        let factor = if unit.starts_with('P') { 1_000 } else { 1 };
        if unit.ends_with("AT") {
            if self.chance(10) {
                // Past: what is given it is gone.
                return self.rng.gen_range(1..1_000_000_000_i64).to_string().into_bytes();
            }
            return ((FAR_FUTURE_S + self.rng.gen_range(0..1_000)) * factor).to_string().into_bytes();
        }
        (self.rng.gen_range(1_000..1_000_000_i64) * factor).to_string().into_bytes()
    }

    /// Options that may stand behind SET's value: often few and fitting, at times any.
    fn set_options(&mut self, line: &mut Vec<Vec<u8>>) {
        let count = *self.pick(&[0, 0, 1, 1, 1, 2, 2, 3, 4]);
        for _ in 0..count {
            match self.rng.gen_range(0..10) {
                0..=1 => line.push(self.text(&["NX", "XX", "nx", "xX"])),
                2..=3 => line.push(self.text(&["GET", "get"])),
                4 => line.push(b"KEEPTTL".to_vec()),
                5..=8 => self.push_time(line),
                _ => line.push(self.text(&OPTIONS)),
            }
        }
    }

    fn push_time(&mut self, line: &mut Vec<Vec<u8>>) {
        let unit = self.word(&["EX", "PX", "EXAT", "PXAT"]);
        line.extend([unit.as_bytes().to_vec(), self.time(unit)]);
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        match self.rng.gen_range(0..1000) {
            0..=5 => return self.scan(),
            6..=9 => return Step::Lines(vec![Line::of("KEYS *"), Line::of("RANDOMKEY")]),
            10..=14 => return self.silence(),
            15..=17 => return Step::Lines(vec![Line::new(&[&b"GET"[..], &self.key()]), Line::of("DBSIZE")]),
            _ => {}
        }
        let mut line = self.line();
        if self.chance(3) {
            self.disturb(&mut line);
        }
        if self.chance(5) {
            let name = &mut line.arguments[0];
            for byte in name.iter_mut() {
                if self.rng.gen() {
                    byte.make_ascii_lowercase();
                }
            }
        }
        // A longer line breaks the rules of inline commands, and the connection with them.
        let is_short = line.arguments.iter().map(Vec::len).sum::<usize>() < 8_000;
        if self.chance(3) && is_short && !line.arguments[0].is_empty() {
            line = line.inline();
        }
        if line.leaves_a_ghost() {
            // Redis keeps a key that is set with a time in the past until somebody looks, and until then MEMORY USAGE
            // sees it.
            let key = line.arguments[1].clone();
            return Step::Lines(vec![line, Line::new(&[&b"EXISTS"[..], &key])]);
        }
        Step::Lines(vec![line])
    }

    /// Commands whose replies the client does not want.
    fn silence(&mut self) -> Step {
        let mut inside: Vec<Line> = (0..self.rng.gen_range(1..4)).map(|_| self.data_line().silent()).collect();
        inside.retain(|line| !line.leaves_a_ghost());
        if self.rng.gen() {
            // It silences one command, so there has to be one.
            inside.truncate(1);
            if inside.is_empty() {
                inside.push(Line::of("PING").silent());
            }
            inside.insert(0, Line::of("CLIENT REPLY SKIP").silent());
        } else {
            inside.insert(0, Line::of("CLIENT REPLY OFF").silent());
            inside.push(Line::of("CLIENT REPLY ON"));
        }
        Step::Lines(inside)
    }

    fn scan(&mut self) -> Step {
        let mut arguments = Vec::new();
        if self.chance(50) {
            arguments.extend([b"MATCH".to_vec(), self.text(&PATTERNS)]);
        }
        if self.chance(50) {
            arguments.extend([b"COUNT".to_vec(), self.text(&["1", "2", "10", "1000"])]);
        }
        if self.chance(30) {
            arguments.extend([b"TYPE".to_vec(), self.text(&["string", "STRING", "list", "hash", "zset"])]);
        }
        Step::Scan(arguments)
    }

    /// Takes an argument away, adds one, or puts another in its place.
    fn disturb(&mut self, line: &mut Line) {
        /// Any other word could make these lock out this connection, or bring replies that nobody counts.
        const NEVER: [&str; 2] = ["CLIENT", "CONFIG"];
        /// Any other key could lie in another slot.
        const APPENDED: [&str; 4] = ["RENAME", "RENAMENX", "COPY", "MSETNX"];
        /// A time or its unit in another place could be one that comes while the sequence runs.
        const UNREPLACED: [&str; 8] = ["SET", "SETEX", "PSETEX", "GETEX", "EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"];
        let (count, name) = (line.arguments.len(), line.word(0));
        if NEVER.contains(&name.as_str()) {
            return;
        }
        if APPENDED.contains(&name.as_str()) {
            line.arguments.push(self.text(&OPTIONS));
            return;
        }
        let replaced = !UNREPLACED.contains(&name.as_str());
        match self.rng.gen_range(0..4) {
            0 if count > 1 => {
                line.arguments.remove(self.rng.gen_range(1..count));
            }
            1 => {
                let extra = if replaced && self.rng.gen() { self.value() } else { self.text(&OPTIONS) };
                line.arguments.insert(self.rng.gen_range(1..=count), extra);
            }
            2 if count > 1 && replaced => {
                let at = self.rng.gen_range(1..count);
                line.arguments[at] = if self.rng.gen() { self.text(&NUMBERS) } else { self.text(&OPTIONS) };
            }
            _ => line.arguments.truncate(1),
        }
    }

    /// A command of any kind.
    fn line(&mut self) -> Line {
        match self.rng.gen_range(0..100) {
            0..=91 => self.data_line(),
            92..=97 => self.connection_line(),
            _ => self.server_line(),
        }
    }

    /// A command on keys.
    fn data_line(&mut self) -> Line {
        let arguments = match self.rng.gen_range(0..100) {
            0..=57 => self.string_arguments(),
            58..=60 => self.moving_arguments(),
            _ => self.key_arguments(),
        };
        Line { arguments, inline: None, answered: true }
    }

    fn string_arguments(&mut self) -> Vec<Vec<u8>> {
        const NAMES: [&str; 36] = [
            "SET",
            "SET",
            "SET",
            "SET",
            "SET",
            "SET",
            "GET",
            "GET",
            "GET",
            "SETNX",
            "SETEX",
            "PSETEX",
            "GETSET",
            "GETDEL",
            "GETEX",
            "GETEX",
            "MGET",
            "MSET",
            "MSETNX",
            "APPEND",
            "APPEND",
            "STRLEN",
            "INCR",
            "INCR",
            "DECR",
            "INCRBY",
            "INCRBY",
            "DECRBY",
            "INCRBYFLOAT",
            "INCRBYFLOAT",
            "GETRANGE",
            "GETRANGE",
            "SETRANGE",
            "SETRANGE",
            "SUBSTR",
            "GET",
        ];
        let name = self.word(&NAMES);
        let mut line = vec![name.as_bytes().to_vec()];
        match name {
            "MGET" => line.extend(self.keys(5)),
            "MSET" => {
                for _ in 0..self.rng.gen_range(1..=3) {
                    line.extend([self.key(), self.value()]);
                }
            }
            "MSETNX" => {
                for _ in 0..self.rng.gen_range(1..=3) {
                    line.extend([self.tagged(), self.value()]);
                }
            }
            _ => line.push(self.key()),
        }
        match name {
            "SET" => {
                line.push(self.value());
                self.set_options(&mut line);
            }
            "SETNX" | "GETSET" | "APPEND" => line.push(self.value()),
            "SETEX" => line.extend([self.time("EX"), self.value()]),
            "PSETEX" => line.extend([self.time("PX"), self.value()]),
            "GETEX" => match self.rng.gen_range(0..10) {
                0..=2 => {}
                3..=4 => line.push(b"PERSIST".to_vec()),
                5..=8 => self.push_time(&mut line),
                _ => self.set_options(&mut line),
            },
            "INCRBY" | "DECRBY" => line.push(self.integer()),
            "INCRBYFLOAT" => line.push(self.float()),
            "GETRANGE" | "SUBSTR" => line.extend([self.text(&INDEXES), self.text(&INDEXES)]),
            "SETRANGE" => {
                let mut value = self.value();
                value.truncate(100);
                line.extend([self.text(&OFFSETS), value]);
            }
            _ => {}
        }
        line
    }

    /// Commands that take a value from one key to another.
    fn moving_arguments(&mut self) -> Vec<Vec<u8>> {
        let name = self.text(&["RENAME", "RENAMENX", "COPY"]);
        let mut line = vec![name, self.tagged(), self.tagged()];
        if line[0] == b"COPY" {
            match self.rng.gen_range(0..6) {
                0..=2 => line.push(b"REPLACE".to_vec()),
                3 => line.extend([b"DB".to_vec(), self.text(&["0", "0", "1", "-1", "x"])]),
                4 => line.extend([b"DB".to_vec(), b"0".to_vec(), b"REPLACE".to_vec()]),
                _ => {}
            }
        }
        line
    }

    fn key_arguments(&mut self) -> Vec<Vec<u8>> {
        const NAMES: [&str; 27] = [
            "DEL",
            "DEL",
            "UNLINK",
            "EXISTS",
            "EXISTS",
            "TOUCH",
            "EXPIRE",
            "EXPIRE",
            "PEXPIRE",
            "EXPIREAT",
            "EXPIREAT",
            "PEXPIREAT",
            "PEXPIREAT",
            "TTL",
            "TTL",
            "PTTL",
            "EXPIRETIME",
            "EXPIRETIME",
            "PEXPIRETIME",
            "PEXPIRETIME",
            "PERSIST",
            "TYPE",
            "TYPE",
            "KEYS",
            "OBJECT",
            "SCAN",
            "MEMORY",
        ];
        let name = self.word(&NAMES);
        let mut line = vec![name.as_bytes().to_vec()];
        match name {
            "DEL" | "UNLINK" => {
                // Few keys: otherwise the database would be empty most of the time.
                let keys = self.keys(2);
                line.extend(keys);
            }
            "EXISTS" | "TOUCH" => line.extend(self.keys(4)),
            "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => {
                let unit = match name {
                    "EXPIRE" => "EX",
                    "PEXPIRE" => "PX",
                    "EXPIREAT" => "EXAT",
                    _ => "PXAT",
                };
                line.extend([self.key(), self.time(unit)]);
                let count = *self.pick(&[0, 0, 1, 1, 2]);
                for _ in 0..count {
                    line.push(self.text(&["NX", "XX", "GT", "LT", "gt", "bogus"]));
                }
            }
            "KEYS" => line.push(self.text(&PATTERNS)),
            "OBJECT" => line.extend([self.text(&["ENCODING", "encoding", "FREQ", "IDLETIME", "bogus"]), self.key()]),
            "MEMORY" => line.extend([b"USAGE".to_vec(), self.key()]),
            "SCAN" => {
                // A cursor or an option that is none; whole iterations are steps of their own.
                line.extend([self.text(&["x", "-1", "1.5", "", "18446744073709551616"]), self.text(&OPTIONS)]);
            }
            _ => line.push(self.key()),
        }
        line
    }

    fn connection_line(&mut self) -> Line {
        const LINES: [&str; 35] = [
            "PING",
            "PING hello",
            "PING a b",
            "ECHO hello",
            "ECHO",
            "HELLO 2",
            "HELLO 3",
            "HELLO 3",
            "HELLO 2",
            "HELLO",
            "HELLO 4",
            "HELLO 1",
            "HELLO x",
            "HELLO 3 SETNAME me",
            "HELLO 2 SETNAME",
            "HELLO 3 BOGUS",
            "HELLO 2 AUTH default x",
            "HELLO 2 AUTH nobody x",
            "AUTH x",
            "AUTH default x",
            "AUTH nobody x",
            "AUTH a b c",
            "SELECT 0",
            "SELECT 1",
            "SELECT -1",
            "SELECT x",
            "RESET",
            "CLIENT SETNAME it",
            "CLIENT GETNAME",
            "CLIENT ID",
            "CLIENT NO-EVICT on",
            "CLIENT NO-EVICT maybe",
            "CLIENT SETNAME a\tb",
            "CLIENT INFO",
            "CLIENT BOGUS",
        ];
        Line::of(self.word(&LINES))
    }

    fn server_line(&mut self) -> Line {
        const LINES: [&str; 36] = [
            "TIME",
            "TIME x",
            "INFO",
            "INFO server",
            "INFO memory clients",
            "LOLWUT",
            "LOLWUT VERSION 5",
            "COMMAND COUNT",
            "COMMAND GETKEYS GET a",
            "COMMAND GETKEYS MSET a 1 b 2",
            "COMMAND GETKEYS PING",
            "COMMAND GETKEYS NOPE a",
            "COMMAND GETKEYS GET",
            "COMMAND INFO nope",
            "COMMAND BOGUS",
            "CONFIG GET maxmemory-policy",
            "CONFIG GET nope",
            "CONFIG GET",
            "CONFIG SET nope 1",
            "CONFIG SET maxmemory",
            "CONFIG SET maxmemory-policy bogus",
            "CONFIG RESETSTAT",
            "CONFIG BOGUS",
            "SLOWLOG LEN",
            "SLOWLOG RESET",
            "SLOWLOG GET x",
            "SLOWLOG BOGUS",
            "LATENCY RESET",
            "LATENCY LATEST",
            "LATENCY BOGUS",
            "MEMORY BOGUS",
            "OBJECT HELP",
            "NOSUCHCOMMAND a b",
            "nosuch",
            "GET",
            "FLUSHALL BOGUS",
        ];
        match self.rng.gen_range(0..100) {
            0 => Line::of("FLUSHALL"),
            1 => Line::of("FLUSHDB ASYNC"),
            2 => Line::of("FLUSHALL SYNC"),
            3..=10 => Line::of("DBSIZE"),
            11 => {
                let many = vec![vec![b'x'; 200]; 20];
                let mut arguments = vec![b"nosuchcommand".to_vec()];
                arguments.extend(many);
                Line::new(&arguments)
            }
            _ => Line::of(self.word(&LINES)),
        }
    }
}
