//! Line, scatter, histogram and heat map as SVG, one look for pages, reports and docs.
