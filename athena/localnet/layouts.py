"""The five page layouts of the local crawl's sites, as string.Template texts. A `$$` stands for one dollar sign."""

from __future__ import annotations

STYLE = """
body { font: 16px/1.5 Georgia, serif; margin: 0; color: #222 } nav ul { display: flex; list-style: none }
.sidebar { float: right; width: 280px; background: #f6f6f6 } .ad { border: 1px solid #ccc; padding: 8px }
.cookie { position: fixed; bottom: 0; background: #333; color: #fff } footer { font-size: 12px; color: #777 }
@media (max-width: 600px) { .sidebar { display: none } }
"""

SCRIPT = """
(function (w, d, a) { w.dataLayer = w.dataLayer || []; w.track = function () { w.dataLayer.push(arguments); };
  w.track('config', a, { anonymize: true, page: d.location.pathname }); }(window, document, 'ACCOUNT'));
document.addEventListener('DOMContentLoaded', function () {
  var banner = document.querySelector('.cookie'); if (!banner) { return; }
  banner.querySelector('button').onclick = function () { banner.remove(); localStorage.setItem('consent', 'yes'); };
});
"""

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$title | $name</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta property="og:site_name" content="$name">
<link rel="canonical" href="http://$host/"><link rel="alternate" type="application/rss+xml" href="/feed.xml">
<style>$style</style><script>$script</script></head>
"""

_COOKIES = """<div class="cookie" role="dialog"><p>We use cookies to improve your experience. By using $name you agree
to our cookie policy and to the use of cookies by our partners.</p><button>Accept all</button>
<button>Manage settings</button></div>
<noscript>Please enable JavaScript to use all features of this page.</noscript>
"""

_DOCS = """<body class="docs"><a class="skip" href="#main">Skip to content</a>
<header><a class="logo" href="/">$name</a><form action="/search"><input name="q" placeholder="Search docs"></form>
<nav><ul>$nav</ul></nav></header>
<aside class="sidebar"><h3>Contents</h3><ul>$related</ul><p>Version: stable · latest · 2.x</p></aside>
<div class="breadcrumbs"><a href="/">Docs</a> » <a href="/guides">User guide</a> » $title</div>
<main id="main" role="main"><article><h1>$title</h1>
$body
</article><div class="pager"><a href="#prev">← Previous</a> <a href="#next">Next →</a></div></main>
<footer><ul>$footer</ul><p>© 2019-2026 $name. Last updated on $date. Built with a site generator.</p></footer>
"""

_BLOG = """<body class="blog single"><header class="site-header"><h2 class="site-title"><a href="/">$name</a></h2>
<nav class="menu"><ul>$nav</ul></nav></header>
<div class="ad">$ad</div>
<div class="content"><article class="post"><h1 class="entry-title">$title</h1>
<p class="byline">By <a rel="author" href="/authors">$author</a> · <time datetime="$date">$date</time>
· $views views</p>
<div class="entry-content">
$body
</div><div class="share"><a href="#fb">Share</a> <a href="#tw">Tweet</a> <a href="#mail">E-mail</a>
<a href="#p">Pin it</a></div></article>
<section id="comments" class="comments"><h3>Comments</h3><ol>$comments</ol>
<form><textarea></textarea><button>Post comment</button></form></section></div>
<aside class="sidebar widget-area"><h3>Recent posts</h3><ul>$related</ul><h3>Newsletter</h3>
<form><input type="email" placeholder="Your e-mail"><button>Subscribe</button></form><div class="ad">$ad</div></aside>
<footer class="site-footer"><ul>$footer</ul><p>© 2026 $name · All rights reserved · Proudly self-hosted</p></footer>
"""

_NEWS = """<body class="news"><div class="topbar">Today's top stories | Weather | Markets | $date</div>
<header><h2><a href="/">$name</a></h2><nav><ul>$nav</ul></nav></header>
<div class="ticker"><ul>$related</ul></div>
<main><div class="story"><h1>$title</h1><div class="meta">$author, staff writer — Updated $date, 09:30</div>
<div class="article-body" itemprop="articleBody">
$body
</div></div><div class="ad">$ad</div>
<div class="related"><h3>More on this</h3><ul>$related</ul></div>
<div class="comments" id="comments"><h3>Join the discussion</h3><ul>$comments</ul></div></main>
<div class="subscribe"><p>Subscribe now and get the first month free. Cancel at any time.</p>
<button>Subscribe</button></div>
<footer><ul>$footer</ul><p>$name is published by Example Media Group. Reproduction without permission is prohibited.</p>
</footer>
"""

_WIKI = """<body class="mediawiki"><div id="mw-navigation"><h2>Navigation menu</h2><ul>$nav</ul><h3>Tools</h3>
<ul><li><a href="/links">What links here</a></li><li><a href="/changes">Related changes</a></li></ul></div>
<div id="content" role="main"><h1 id="firstHeading">$title</h1><div id="siteSub">From $name, the free reference</div>
<div class="toc"><h2>Contents</h2><ol>$related</ol></div>
<div id="mw-content-text">
$body
</div><div class="catlinks">Categories: <a href="/c/1">Articles needing sources</a> | <a href="/c/2">Software</a></div>
</div><footer><p>This page was last edited on $date. It has been viewed $views times.</p><ul>$footer</ul></footer>
"""

_FORUM = """<body class="forum"><header><a href="/">$name</a><nav><ul>$nav</ul></nav>
<p>Welcome, guest. Please log in or register. Did you miss your activation mail?</p></header>
<div class="thread"><h1>$title</h1><div class="post-meta">Started by $author on $date, $views reads</div>
<div class="post-body">
$body
</div><div class="post-actions"><a href="#quote">Quote</a> <a href="#like">Like</a> <a href="#report">Report</a></div>
<ol class="replies comments">$comments</ol></div>
<aside class="sidebar"><h3>Similar threads</h3><ul>$related</ul><div class="ad">$ad</div></aside>
<footer><ul>$footer</ul><p>Powered by $name boards. All times are UTC. There are 12 members and 340 guests on-line.</p>
</footer>
"""

LAYOUTS = {
    name: _HEAD + layout + _COOKIES + "</body></html>\n"
    for name, layout in (("docs", _DOCS), ("blog", _BLOG), ("news", _NEWS), ("wiki", _WIKI), ("forum", _FORUM))
}
