//! The bar on a terminal.
//!
//! Place in the flow: beside whatever takes long. Where standard error is no terminal, or the answer is JSON, there is
//! none.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Bytes,
    Entries,
}

/// A bar that counts to `total`.
pub fn bar(name: &'static str, unit: Unit, total: u64, wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match unit {
        Unit::Bytes => "{prefix} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        Unit::Entries => "{prefix} [{bar:40}] {human_pos}/{human_len} {per_sec}, {eta} left",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_prefix(name).with_style(style)
}
