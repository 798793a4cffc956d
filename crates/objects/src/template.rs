//! Defaults and checks of pod specs, wherever they occur.
