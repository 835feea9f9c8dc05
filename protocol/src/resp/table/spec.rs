//! What the table says of a command.
//!
//! Place in the flow: the types behind [`super`]; no data.
//!
//! Invariant: everything is a constant, so the table costs nothing when the server starts.

/// A set of named bits.
macro_rules! bits {
    (
        $(#[$doc:meta])* $type:ident($number:ty) {
            $($(#[$bit_doc:meta])* $bit:ident = $name:literal @ $at:literal),+ $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $type($number);

        impl $type {
            /// None.
            pub const NONE: Self = Self(0);
            $($(#[$bit_doc])* pub const $bit: Self = Self(1 << $at);)+
            /// Every one with its name, in the order in which Redis lists them.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$bit, $name)),+];

            /// These and `other`.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether all of `other` are among these.
            #[inline]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The names of these.
            pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
                Self::ALL.iter().filter(move |(bit, _)| self.has(*bit)).map(|(_, name)| *name)
            }

            /// The one with this name, in upper or lower case.
            pub fn named(name: &[u8]) -> Option<Self> {
                Self::ALL.iter().find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(bit, _)| *bit)
            }
        }
    };
}

bits! {
    /// How a command behaves, in Redis's terms.
    Flags(u16) {
        /// Changes data.
        WRITE = "write" @ 0,
        /// Reads data and changes none.
        READONLY = "readonly" @ 1,
        /// May take memory: refused when there is none.
        DENY_OOM = "denyoom" @ 2,
        /// For administrators.
        ADMIN = "admin" @ 3,
        /// Not from scripts.
        NO_SCRIPT = "noscript" @ 4,
        /// Also while the server recovers.
        LOADING = "loading" @ 5,
        /// Also on a replica that lost its leader.
        STALE = "stale" @ 6,
        /// Takes constant or logarithmic time.
        FAST = "fast" @ 7,
        /// Also before authentication.
        NO_AUTH = "no_auth" @ 8,
        /// Not in transactions.
        NO_MULTI = "no_multi" @ 9,
        /// Also while a script holds the server.
        ALLOW_BUSY = "allow_busy" @ 10,
    }
}

bits! {
    /// The categories that access rules name.
    Categories(u16) {
        /// About keys, whatever their type.
        KEYSPACE = "keyspace" @ 0,
        /// Reads data.
        READ = "read" @ 1,
        /// Changes data.
        WRITE = "write" @ 2,
        /// About strings.
        STRING = "string" @ 3,
        /// For administrators.
        ADMIN = "admin" @ 4,
        /// Fast.
        FAST = "fast" @ 5,
        /// Not fast.
        SLOW = "slow" @ 6,
        /// Can do harm.
        DANGEROUS = "dangerous" @ 7,
        /// About connections.
        CONNECTION = "connection" @ 8,
    }
}

bits! {
    /// What a command does with a key, in Redis's terms.
    KeyFlags(u16) {
        /// Reads it.
        RO = "RO" @ 0,
        /// Reads and writes it.
        RW = "RW" @ 1,
        /// Overwrites it.
        OW = "OW" @ 2,
        /// Removes it.
        RM = "RM" @ 3,
        /// What the value holds may be returned.
        ACCESS = "access" @ 4,
        /// What the value holds may be changed.
        UPDATE = "update" @ 5,
        /// A value may be added.
        INSERT = "insert" @ 6,
        /// A value may be removed.
        DELETE = "delete" @ 7,
        /// The arguments decide which of these hold.
        VARIABLE = "variable_flags" @ 8,
    }
}

/// Who may use a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Whoever may read data.
    Read,
    /// Whoever may change data.
    Write,
    /// Administrators.
    Admin,
    /// Whoever is connected: it neither reads nor changes data.
    Connected,
    /// Whoever is connected, before authentication too.
    Anyone,
}

/// What a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Strings.
    String,
    /// Keys, whatever their type.
    Generic,
    /// The connection.
    Connection,
    /// The server.
    Server,
    /// Routing.
    Cluster,
}

impl Group {
    /// The name in COMMAND DOCS.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Generic => "generic",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Cluster => "cluster",
        }
    }
}

/// Where some keys stand among the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// What happens to them.
    pub flags: KeyFlags,
    /// The first; the command's name is 0.
    pub first: u8,
    /// The last, counted from the first; a negative one from the end: -1 is the last argument.
    pub last: i8,
    /// From one key to the next.
    pub step: u8,
    /// Why the flags are what they are; mostly empty.
    pub notes: &'static str,
}

impl KeySpec {
    /// One key, at `first`.
    pub const fn one(first: u8, flags: KeyFlags) -> Self {
        Self { flags, first, last: 0, step: 1, notes: "" }
    }

    /// Keys from the first argument to the last, `step` from one to the next.
    pub const fn all(step: u8, flags: KeyFlags) -> Self {
        Self { flags, first: 1, last: -1, step, notes: "" }
    }

    /// The same, with a note.
    #[must_use]
    pub const fn note(self, notes: &'static str) -> Self {
        Self { notes, ..self }
    }
}

/// Since when a command should not be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deprecation {
    /// The version of Redis.
    pub since: &'static str,
    /// What to use.
    pub replaced_by: &'static str,
}

/// One command or subcommand.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// In lower case; a subcommand's is `container|name`.
    pub name: &'static str,
    /// How many arguments it takes, its name and a subcommand's counted; a negative one: so many or more.
    pub arity: i8,
    /// The version of Redis that had it first.
    pub since: &'static str,
    /// What it is about.
    pub group: Group,
    /// How its time grows.
    pub complexity: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// What stands behind its name, for HELP.
    pub syntax: &'static str,
    /// How it behaves.
    pub flags: Flags,
    /// Categories beside those that follow from the flags.
    pub more_categories: Categories,
    /// Where its keys are.
    pub key_specs: &'static [KeySpec],
    /// How a proxy or a cluster's client may split it and join the replies.
    pub tips: &'static [&'static str],
    /// Set for one that should not be used any more.
    pub deprecation: Option<Deprecation>,
    /// Its subcommands.
    pub subcommands: &'static [CommandSpec],
}

/// Whether `count` arguments are what `arity` asks for.
#[inline]
pub(super) const fn arity_takes(arity: i8, count: usize) -> bool {
    if arity >= 0 {
        count == arity as usize
    } else {
        count >= arity.unsigned_abs() as usize
    }
}

impl CommandSpec {
    /// Whether it takes as many keys as a client likes.
    pub fn takes_many_keys(&self) -> bool {
        self.key_specs.iter().any(|spec| spec.last < 0)
    }

    pub(super) const fn new(
        name: &'static str,
        arity: i8,
        since: &'static str,
        group: Group,
        complexity: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            name,
            arity,
            since,
            group,
            complexity,
            summary,
            syntax: "",
            flags: Flags::NONE,
            more_categories: Categories::NONE,
            key_specs: &[],
            tips: &[],
            deprecation: None,
            subcommands: &[],
        }
    }

    pub(super) const fn flags(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    pub(super) const fn in_categories(self, more_categories: Categories) -> Self {
        Self { more_categories, ..self }
    }

    pub(super) const fn keys(self, key_specs: &'static [KeySpec]) -> Self {
        Self { key_specs, ..self }
    }

    pub(super) const fn tips(self, tips: &'static [&'static str]) -> Self {
        Self { tips, ..self }
    }

    pub(super) const fn syntax(self, syntax: &'static str) -> Self {
        Self { syntax, ..self }
    }

    pub(super) const fn deprecated(self, since: &'static str, replaced_by: &'static str) -> Self {
        Self { deprecation: Some(Deprecation { since, replaced_by }), ..self }
    }

    pub(super) const fn subcommands(self, subcommands: &'static [CommandSpec]) -> Self {
        Self { subcommands, ..self }
    }

    /// Whether a request of `count` arguments, its name counted, has the right number.
    #[inline]
    pub const fn takes(&self, count: usize) -> bool {
        arity_takes(self.arity, count)
    }

    /// The name without the container's.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, name)| name)
    }

    /// The subcommand with this name, in upper or lower case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static CommandSpec> {
        self.subcommands.iter().find(|spec| spec.short_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Who may use it.
    pub const fn access(&self) -> Access {
        if self.flags.has(Flags::ADMIN) {
            Access::Admin
        } else if self.flags.has(Flags::WRITE) {
            Access::Write
        } else if self.flags.has(Flags::READONLY) {
            Access::Read
        } else if self.flags.has(Flags::NO_AUTH) {
            Access::Anyone
        } else {
            Access::Connected
        }
    }

    /// All its categories.
    pub fn categories(&self) -> Categories {
        let mut all = self.more_categories;
        if self.flags.has(Flags::WRITE) {
            all = all.and(Categories::WRITE);
        }
        if self.flags.has(Flags::READONLY) {
            all = all.and(Categories::READ);
        }
        if self.flags.has(Flags::ADMIN) {
            all = all.and(Categories::ADMIN).and(Categories::DANGEROUS);
        }
        all.and(if self.flags.has(Flags::FAST) { Categories::FAST } else { Categories::SLOW })
    }

    /// The position of the first key, 0 if there is none.
    pub fn first_key(&self) -> i64 {
        self.key_specs.first().map_or(0, |spec| i64::from(spec.first))
    }

    /// The position of the last key, negative from the end, 0 if there is none.
    pub fn last_key(&self) -> i64 {
        self.key_specs.last().map_or(0, |spec| match spec.last {
            last @ 0.. => i64::from(spec.first) + i64::from(last),
            from_end => i64::from(from_end),
        })
    }

    /// From one key to the next, 0 if there is none.
    pub fn key_step(&self) -> i64 {
        self.key_specs.first().map_or(0, |spec| i64::from(spec.step))
    }

    /// The positions of the keys in a request of `count` arguments, and what happens to each.
    pub fn key_positions(&self, count: usize) -> impl Iterator<Item = (usize, KeyFlags)> {
        self.key_specs.iter().flat_map(move |spec| {
            let first = usize::from(spec.first);
            let end = match spec.last {
                last @ 0.. => first + last as usize + 1,
                from_end => (count + 1).saturating_sub(usize::from(from_end.unsigned_abs())),
            };
            (first..end.min(count)).step_by(usize::from(spec.step)).map(|position| (position, spec.flags))
        })
    }
}
