//! The object model: kinds, names, selectors, quantities, validation, defaults
