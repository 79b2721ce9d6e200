// What makes a page hard to read, as lists: texts of little contrast with what
// lies behind them (WCAG 2, 1.4.3), and things without a name for a screen
// reader.
(() => {
  const parse = (text) => {
    const parts = text.match(/[\d.]+/g).map(Number);
    return parts.length > 3 ? parts : [...parts, 1];
  };
  const linear = (value) => value <= 0.04045
    ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([red, green, blue]) => 0.2126 * linear(red / 255) +
    0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const unseen = ["script", "style", "title", "noscript"];

  function pale() {
    const walker = document.createTreeWalker(
      document.body, NodeFilter.SHOW_TEXT
    );
    const found = [];
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      const text = walker.currentNode.textContent.trim();
      if (!text || unseen.includes(element.tagName.toLowerCase())) continue;
      if (!element.checkVisibility()) continue;
      const style = getComputedStyle(element);
      const mark = element.closest(".mark");
      const back = mark ? parse(getComputedStyle(mark).color) : behind(element);
      const isSvg = element instanceof SVGElement;
      const front = parse(isSvg ? style.fill : style.color);
      const [high, low] = [light(front), light(back)].sort((x, y) => y - x);
      const contrast = (high + 0.05) / (low + 0.05);
      const size = parseFloat(style.fontSize);
      const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      if (contrast < (isLarge ? 3 : 4.5)) {
        found.push(text.slice(0, 40) + ": " + contrast.toFixed(2));
      }
    }
    return found;
  }

  function nameless() {
    const kinds = "img, svg.map, svg.chart, button, a, select, input, " +
      "[tabindex='0']";
    return [...document.querySelectorAll(kinds)].filter((element) => {
      if (!element.checkVisibility()) return false;
      if (element.tagName === "IMG") return !element.hasAttribute("alt");
      const labels = element.labels ? [...element.labels] : [];
      return ![
        element.getAttribute("aria-label"),
        element.textContent,
        ...labels.map((label) => label.textContent),
        ...[...element.querySelectorAll("img")].map((image) => image.alt)
      ].some((text) => text && text.trim());
    }).map((element) => element.outerHTML.slice(0, 120));
  }

  return {
    pale: pale(),
    nameless: nameless(),
    width: document.documentElement.scrollWidth,
    screen: innerWidth
  };
})()
