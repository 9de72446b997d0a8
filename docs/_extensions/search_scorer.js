// Sphinx's own scores of what a search finds (sphinx/themes/basic/static/searchtools.js), and one more rule.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  // A heading that is what was typed goes before pages that have its words in several: `unusable:frozen` is a status.
  score: ([, , , , score, , kind]) => (kind === "title" && score >= Scorer.title ? score + 10 : score),
};
