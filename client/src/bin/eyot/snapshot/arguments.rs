//! What stands behind `eyot snapshot`, and its help.
//!
//! Place in the flow: part of [`crate::arguments`].

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Most keys that `inspect` shows: it keeps them in memory.
pub const LARGEST_MAX: u64 = 10_000;

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Have the node make new snapshots of all shards, and wait for them
    Create(Create),
    /// Show what snapshots the node has, and how far new ones are
    Status,
    /// Save the whole database of the node into one file
    Save(Save),
    /// Check every byte of a snapshot; exit code 6 where it is damaged
    Verify {
        /// What `eyot snapshot save` wrote, or a `.snap` file of a data directory
        file: PathBuf,
    },
    /// Check a snapshot and show what is in it: counts, sizes, the index of each shard, the largest keys
    Inspect(Inspect),
    /// Write all entries of a snapshot to the node
    Restore(Restore),
    /// Write a snapshot's entries as text, one a line
    Export(Export),
    /// Write the entries of a text file to the node
    Import(Import),
}

/// See [`SnapshotCommand::Create`].
#[derive(Debug, Args)]
pub struct Create {
    /// Do not wait until they are done
    #[arg(long)]
    pub no_wait: bool,
}

/// See [`SnapshotCommand::Save`].
#[derive(Debug, Args)]
pub struct Save {
    /// The file. It appears when it is whole; a file of this name is replaced then
    pub file: PathBuf,
    /// Compress it
    #[arg(long, value_enum, value_name = "METHOD")]
    pub compress: Option<Compression>,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Compression {
    /// Zstandard, at its usual level
    Zstd,
}

/// See [`SnapshotCommand::Inspect`].
#[derive(Debug, Args)]
pub struct Inspect {
    /// What `eyot snapshot save` wrote, or a `.snap` file of a data directory
    pub file: PathBuf,
    /// How many of the largest keys to show
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=LARGEST_MAX))]
    pub largest: u64,
}

/// See [`SnapshotCommand::Restore`].
#[derive(Debug, Args)]
pub struct Restore {
    /// What `eyot snapshot save` wrote, or a `.snap` file of a data directory. It is checked before anything is written
    pub file: PathBuf,
    /// Write to a node that has keys: those that are in the snapshot are overwritten, the others stay
    #[arg(long)]
    pub replace: bool,
}

/// See [`SnapshotCommand::Export`].
#[derive(Debug, Args)]
pub struct Export {
    /// What `eyot snapshot save` wrote, or a `.snap` file of a data directory
    pub file: PathBuf,
    /// The form of the text
    #[arg(long, value_enum)]
    pub format: TextFormat,
    /// Where to: a file that appears when it is whole [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// See [`SnapshotCommand::Import`].
#[derive(Debug, Args)]
pub struct Import {
    /// The text, as `eyot snapshot export` writes it; `-` is standard input
    pub file: PathBuf,
    /// The form of the text
    #[arg(long, value_enum)]
    pub format: TextFormat,
    /// Overwrite keys that exist; without it they keep their values, and the exit code is 1
    #[arg(long)]
    pub replace: bool,
}

/// How entries are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// One JSON object a line: {"key":"user:1","value":"John","expires_at_us":1767225600000000}
    Jsonl,
    /// Comma-separated, with a head line: key,key_encoding,type,value,expires_at_us
    Csv,
}
