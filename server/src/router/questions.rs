//! Questions that every core answers for itself, and what becomes of the answers.
//!
//! Place in the flow: between step 4 (route) and step 9 (reply), for what is about the node and not about keys.

use crate::metrics::CoreReport;

/// What every core is asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// Its figures.
    Figures,
}

/// What one core tells.
#[derive(Debug)]
pub enum Part {
    /// Its figures.
    Figures(Box<CoreReport>),
}

impl Part {
    /// The figures.
    ///
    /// # Panics
    /// When it tells something else: the question was another.
    pub fn into_figures(self) -> CoreReport {
        match self {
            Self::Figures(report) => *report,
        }
    }
}

/// What the answers are wanted for.
#[derive(Debug)]
pub enum Purpose {
    /// The native STATS.
    Statistics,
    /// A reply over RESP.
    Resp(RespPurpose),
}

/// Replies over RESP that need every core.
#[derive(Debug)]
pub enum RespPurpose {
    /// INFO, of these sections.
    Info(Vec<String>),
}
