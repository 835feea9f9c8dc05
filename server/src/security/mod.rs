//! Who may do what, and how much of it.
//!
//! Place in the flow: step 3 (admit). In this version: bounds. Access control comes with the security work.

pub mod admit;
