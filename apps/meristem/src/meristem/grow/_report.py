"""tmp"""
def render_report(grown, folder): return "<html></html>"
