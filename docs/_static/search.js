// Questions as people ask them. Sphinx shows the pages that hold every word of a
// query; here each word that a page, or the title of a section, holds counts for
// it, the more the fewer pages hold it (Spärck Jones 1972); in a title of few
// other words, for more.
if (typeof Search !== "undefined") {
  const SCALE = 4; // beside the scores of whole titles and of symbols
  const IN_TITLE = 3;

  Search.performTermsSearch = (searchTerms, excludedTerms) => {
    const { terms, titleterms, alltitles, docnames, filenames, titles } = Search._index;
    const stemmer = new Stemmer();
    const holding = (index, word) => (Object.hasOwn(index, word) ? [index[word]].flat() : []);
    const weights = new Map(), scores = new Map();
    // A page of many words holds any word sooner.
    const sizes = docnames.map(() => 0);
    Object.values(terms).flat().forEach((page) => { sizes[page] += 1; });
    const mean = sizes.reduce((a, b) => a + b) / sizes.length;
    const fewness = (page) => 1 / Math.sqrt(0.5 + sizes[page] / (2 * mean));
    for (const word of searchTerms) {
      const pages = new Set([...holding(terms, word), ...holding(titleterms, word)]);
      if (!pages.size && word.length > 2) { // the beginning of a word
        for (const term of Object.keys(terms)) {
          if (term.startsWith(word)) holding(terms, term).forEach((page) => pages.add(page));
        }
      }
      const weight = Math.log(1 + docnames.length / pages.size);
      weights.set(word, weight);
      for (const page of pages) scores.set(page, (scores.get(page) ?? 0) + weight * fewness(page));
    }
    const excluded = new Set([...excludedTerms].flatMap((word) => [...holding(terms, word), ...holding(titleterms, word)]));
    const found = [...scores].map(([page, score]) => [page, titles[page], "", score]);
    for (const [title, places] of Object.entries(alltitles)) {
      const words = new Set(splitQuery(title.toLowerCase()).filter((word) => !stopwords.has(word)).map((word) => stemmer.stemWord(word)));
      const held = [...words].filter((word) => weights.has(word));
      const score = held.reduce((sum, word) => sum + weights.get(word), 0) * (1 + (IN_TITLE - 1) * held.length / words.size);
      if (!held.length) continue;
      for (const [page, id] of places) {
        const isPage = titles[page] === title;
        found.push([page, isPage ? title : `${titles[page]} > ${title}`, isPage || id === null ? "" : `#${id}`, score]);
      }
    }
    return found.filter(([page]) => !excluded.has(page)).map(([page, title, anchor, score]) => [
      docnames[page], title, anchor, null, Math.round(SCALE * score), filenames[page],
      anchor ? SearchResultKind.title : SearchResultKind.text,
    ]);
  };
}
