//! Questions that every core answers for itself, and what becomes of the answers.
//!
//! Place in the flow: between step 4 (route) and step 9 (reply), for what is about the node and not about keys. What is
//! asked and told is `admin::gather`'s.

pub use crate::admin::gather::{Answer, Question};

use crate::admin::gather::Pending;

/// What the answers are wanted for.
#[derive(Debug)]
pub enum Purpose {
    /// The native STATS.
    Statistics,
    /// A reply over RESP.
    Resp(Pending),
}
