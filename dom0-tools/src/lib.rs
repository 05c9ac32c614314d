//! Libraries under the dom0 tools.
