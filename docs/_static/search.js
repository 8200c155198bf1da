// Questions as people ask them. Sphinx shows the pages that hold every word of a
// query; here each word that a page holds counts for it, the more the fewer
// pages hold it (Spärck Jones 1972), and three times where it is in a title.
if (typeof Search !== "undefined") {
  Search.performTermsSearch = (searchTerms, excludedTerms) => {
    const { terms, titleterms, docnames, filenames, titles } = Search._index;
    const SCALE = 4; // beside the scores of whole titles and of symbols
    const holding = (index, word) => (Object.hasOwn(index, word) ? [index[word]].flat() : []);
    const scores = new Map();
    for (const word of searchTerms) {
      const inText = holding(terms, word), inTitle = holding(titleterms, word);
      const pages = new Set([...inText, ...inTitle]);
      if (!pages.size && word.length > 2) { // the beginning of a word
        for (const term of Object.keys(terms)) {
          if (term.startsWith(word)) holding(terms, term).forEach((page) => pages.add(page));
        }
      }
      const weight = Math.log(1 + docnames.length / pages.size);
      for (const page of pages) {
        const times = inTitle.includes(page) ? 3 : 1;
        scores.set(page, (scores.get(page) ?? 0) + SCALE * weight * times);
      }
    }
    for (const word of excludedTerms) {
      for (const page of [...holding(terms, word), ...holding(titleterms, word)]) scores.delete(page);
    }
    return [...scores].map(([page, score]) => [
      docnames[page], titles[page], "", null, Math.round(score), filenames[page], SearchResultKind.text,
    ]);
  };
}
