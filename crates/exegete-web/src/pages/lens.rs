//! The logit lens as a page that stands alone: no server, no script.

use maud::{Markup, PreEscaped, html};

use super::pieces::document;
use crate::wire::LensView;

/// The style of the dashboards, and what a table of cells needs beside it.
const STYLE: &str = concat!(
    include_str!("../../static/style.css"),
    "main.lens{max-width:none}.lens .grid{overflow-x:auto}.lens table{border-collapse:separate;border-spacing:2px}\
     .lens th{position:sticky;left:0;background:var(--ground);text-align:left;font-weight:500;white-space:nowrap;\
     padding:2px 8px}.lens thead th{position:static}.lens td{font-family:var(--mono);font-size:13px;padding:3px 8px;\
     white-space:pre;border-radius:3px;background:rgb(var(--heat)/calc(var(--p)*.75))}.lens td small{display:block;\
     color:var(--soft)}.lens td.next{outline:2px solid var(--accent)}"
);

/// The page. All text is escaped.
pub fn lens_page(view: &LensView) -> String {
    page(view).into_string()
}

fn page(view: &LensView) -> Markup {
    let body = html! {
        header.top { span.brand { "exegete" } span.run { (view.model) } }
        main.lens {
            h1 { "Logit lens" }
            p.note {
                "Each cell is the likeliest next token if the model ended with that layer, shaded by its probability; "
                "below it, the distance of that distribution to the final one (KL, nats), and in brackets its distance to "
                "the final one of another position, the control. Framed: the token that does come next."
            }
            div.grid role="region" aria-label="Likeliest tokens by layer and position" tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "after" }
                            @for token in &view.tokens { th scope="col" { code { (token) } } }
                        }
                    }
                    tbody {
                        @for row in view.rows.iter().rev() {
                            tr {
                                th scope="row" { (row.site) }
                                @for cell in &row.cells {
                                    td.next[cell.is_next] style={ "--p:" (format!("{:.3}", cell.probability)) } title=(cell.others) {
                                        (cell.token)
                                        small {
                                            (format!("{:.2}", cell.kl_to_final))
                                            @if let Some(kl) = cell.kl_to_other { (format!(" [{kl:.1}]")) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if !view.shares.is_empty() {
                h2 { "What adds to the logit of " code { (view.attributed) } " at the last position" }
                table {
                    tbody {
                        @for (site, logit) in &view.shares {
                            tr { th scope="row" { (site) } td { (format!("{logit:+.3}")) } }
                        }
                    }
                }
            }
        }
    };
    document("Logit lens", &html! { style { (PreEscaped(STYLE)) } }, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{LensCell, LensRow};

    #[test]
    fn tokens_cannot_write_markup() {
        let cell = LensCell {
            token: "<script>".into(),
            probability: 0.5,
            others: "\"><img>".into(),
            kl_to_final: 0.1,
            kl_to_other: Some(2.0),
            is_next: true,
        };
        let view = LensView {
            model: "m</title>".into(),
            tokens: vec!["</style>".into()],
            rows: vec![LensRow { site: "hook_embed".into(), cells: vec![cell] }],
            attributed: "<b>".into(),
            shares: vec![("x<y".into(), 1.0)],
        };
        let page = lens_page(&view);
        for bad in ["<script>", "<img>", "m</title>", "<b>", "x<y"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.contains("&lt;script&gt;") && page.contains("--p:0.500") && page.contains("[2.0]"));
    }
}
